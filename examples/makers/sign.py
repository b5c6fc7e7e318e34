"""The photographed sign: its words, the wall behind it, and the camera's view of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from makers.sheet import FINE, Pixels, Point, Sheet, cloud, font, grain

PHOTO = (1200, 900)
BOARD = (820, 600)
#: Where the board's corners lie in the photo: left top, right top, right bottom, left bottom.
CORNERS: tuple[Point, ...] = ((205, 168), (1012, 118), (1030, 742), (188, 722))
HEAD = "Riverside Library"
SUBHEAD = "Opening hours"
ROWS = (
    ("Monday – Thursday", "9:00 – 18:00"),
    ("Friday", "9:00 – 20:00"),
    ("Saturday", "10:00 – 16:00"),
    ("Sunday", "Closed"),
)
FOOT = ("Telephone", "555 0142")
CREAM, GREEN = (240, 234, 214), (28, 72, 60)
BRICK = (160, 64)  #: pixels


def draw_board() -> Sheet:
    """Draw the sign as it hangs, seen from the front."""
    sheet = Sheet(BOARD, CREAM, ink=GREEN)
    width, height = (side * FINE for side in BOARD)
    sheet.draw.rectangle((0, 0, width, height), outline=GREEN, width=14 * FINE)
    sheet.text((70, 110), HEAD, font("Serif-Bold", 68))
    sheet.rule(70, 750, 140, 4)
    sheet.text((70, 205), SUBHEAD, font("Serif-Italic", 42))
    for n, (day, hours) in enumerate(ROWS):
        sheet.text((70, 280 + 64 * n), day, font("Sans-Regular", 38))
        sheet.text((750, 280 + 64 * n), hours, font("Sans-Bold", 38), right=True)
    sheet.rule(70, 750, 500, 2)
    sheet.text((70, 552), FOOT[0], font("Sans-Regular", 36))
    sheet.text((750, 552), FOOT[1], font("Sans-Bold", 36), right=True)
    for x, y in ((30, 30), (790, 30), (30, 570), (790, 570)):
        sheet.draw.circle((x * FINE, y * FINE), 7 * FINE, fill=(120, 116, 104))
    return sheet


def draw_wall(rng: np.random.Generator) -> Image.Image:
    """Draw rows of bricks in mortar, no two of the same red."""
    width, height = (side * FINE for side in PHOTO)
    wall = Image.new("RGB", (width, height), (172, 164, 152))
    pen = ImageDraw.Draw(wall)
    for row, top in enumerate(range(-20, height, BRICK[1] * FINE)):
        for left in range(-BRICK[0] * FINE * (1 + row % 2) // 2, width, BRICK[0] * FINE):
            red, light = rng.integers(118, 160), rng.uniform(0.45, 0.6)
            box = (left, top, left + (BRICK[0] - 9) * FINE, top + (BRICK[1] - 9) * FINE)
            pen.rounded_rectangle(box, 4 * FINE, fill=(int(red), int(red * light), int(red * light * 0.8)))
    return wall.filter(ImageFilter.GaussianBlur(2.5))


def perspective(corners: tuple[Point, ...], size: tuple[int, int]) -> list[float]:
    """Return Pillow's eight numbers that show a picture of `size` with its corners at `corners`."""
    width, height = size
    rows, targets = [], []
    for (x, y), (u, v) in zip(corners, ((0, 0), (width, 0), (width, height), (0, height)), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        targets += [u, v]
    return [float(number) for number in np.linalg.solve(np.array(rows), np.array(targets))]


def hang(board: Image.Image, wall: Image.Image) -> Image.Image:
    """Return the wall with the board on it, seen from the side, and the board's shadow."""
    corners = tuple((x * FINE, y * FINE) for x, y in CORNERS)
    view = perspective(corners, board.size)
    mask = Image.new("L", board.size, 255).transform(wall.size, Image.Transform.PERSPECTIVE, view)
    shadow = Image.new("L", wall.size)
    shadow.paste(mask, (14 * FINE, 18 * FINE))
    wall.paste((40, 30, 28), mask=shadow.filter(ImageFilter.GaussianBlur(12 * FINE)).point(lambda v: v * 0.75))
    seen = board.transform(wall.size, Image.Transform.PERSPECTIVE, view, Image.Resampling.BICUBIC)
    wall.paste(seen, mask=mask)
    return wall


def photographed(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return `scene` as a hand-held camera gives it: rough surfaces, light from the left, a little out of focus."""
    width, height = PHOTO
    small = scene.resize(PHOTO, Image.Resampling.LANCZOS)
    rough: Pixels = np.asarray(small, dtype=np.float64) * (1 + 0.06 * cloud(rng, PHOTO, 300))
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    light = 1.04 - 0.2 * (x + 0.4 * y) - 0.14 * (x**2 + y**2)
    lit = (rough * (light[..., None] + 0.06 * cloud(rng, PHOTO, 5)) * (1.03, 1.0, 0.94)).clip(0, 255)
    soft = Image.fromarray(lit.astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.2))
    return grain(rng, np.asarray(soft, dtype=np.float64), 3)


def make_sign(path: Path) -> dict[str, Any]:
    """Write the photo and return the truth about it."""
    rng = np.random.default_rng(142)
    board = draw_board()
    photographed(hang(board.image, draw_wall(rng)), rng).save(path, quality=80)
    hours = dict(ROWS)
    questions = {
        "What are the opening hours on Saturday?": hours["Saturday"],
        "What are the opening hours on Friday?": hours["Friday"],
        "What is the telephone number?": FOOT[1],
    }
    return {"type": "vqa", "lines": board.lines(), "questions": questions}
