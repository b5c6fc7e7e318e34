"""A picture to write on that remembers its words, and the light and noise of a camera or scanner."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.float64]  #: height × width × 3, 0 to 255
Point = tuple[float, float]
Colour = tuple[int, int, int]

FINE = 2  #: Pictures are drawn this much larger and shrunk once, so that letters have soft edges.


def font(name: str, size: float) -> ImageFont.FreeTypeFont:
    """Open one of the Liberation fonts at `size` pixels of the finished picture."""
    return ImageFont.truetype(f"Liberation{name}.ttf", size * FINE)


class Sheet:
    """An enlarged empty picture that remembers the words drawn on it and where."""

    def __init__(self, size: tuple[int, int], paper: Colour, ink: Colour) -> None:
        self.size = size
        self.ink = ink
        self.image = Image.new("RGB", (size[0] * FINE, size[1] * FINE), paper)
        self.draw = ImageDraw.Draw(self.image)
        self._cells: list[tuple[float, float, str]] = []

    def text(self, at: Point, text: str, face: ImageFont.FreeTypeFont, *, right: bool = False) -> None:
        """Write `text` on the baseline at `at`, which is its left end, or its right end if `right`."""
        x, y = at
        self.draw.text((x * FINE, y * FINE), text, self.ink, face, anchor="rs" if right else "ls")
        self._cells.append((y, x, text))

    def rule(self, left: float, right: float, y: float, width: int = 1) -> None:
        """Draw a horizontal line."""
        self.draw.line((left * FINE, y * FINE, right * FINE, y * FINE), self.ink, width * FINE)

    def lines(self) -> list[str]:
        """Return the rows from top to bottom, the cells of a row joined by a space from left to right."""
        rows: dict[float, list[str]] = {}
        for y, _, text in sorted(self._cells):
            rows.setdefault(y, []).append(text)
        return [" ".join(row) for row in rows.values()]


def cloud(rng: np.random.Generator, size: tuple[int, int], cells: int) -> Pixels:
    """Return smooth random light and shade, about -1 to 1, as height × width × 1."""
    width, height = size
    coarse = Image.fromarray(rng.normal(0, 0.5, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)[..., None]


def grain(rng: np.random.Generator, pixels: Pixels, sigma: float) -> Image.Image:
    """Return `pixels` as an image, with the grey noise of a sensor."""
    noise = rng.normal(0, sigma, (*pixels.shape[:2], 1))
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))
