"""Measures what RapidOCR's options and our threads do to time, memory and errors: `python -m bench.ocr_options`.

Prints one JSON object a line: {name, value, unit, conditions}. Each set of options runs in a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import resource
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from PIL import Image, ImageDraw
from rapidfuzz.distance import Levenshtein

from bench.pages import A4, MARGIN, page_font, page_lines
from worker.engines.base import Line
from worker.engines.layout import Page, arrange
from worker.engines.ocr import OCR_OPTIONS, PageReader, new_ocr, to_pixels

REPEATS = 4
MIXED = (72, 72, 60, 40, 25)  #: letters in a line, in turn
BODY, SMALL, COLUMN_SIZE = 22, 12, 18  #: pixels at 150 dpi: 10.5, 6 and 8.5 points
COLUMNS = (MARGIN, 650)  #: where two columns begin
THREADS = "EngineConfig.onnxruntime.intra_op_num_threads"
#: RapidOCR called directly, one page after another.
OPTIONS: dict[str, dict[str, Any]] = {
    "chosen": {},
    "detection_960": {"Det.limit_side_len": 960},
    "detection_1760": {"Det.limit_side_len": 1760},
    "six_lines_at_once": {"Rec.rec_batch_num": 6},
    "classifier_on": {"Global.use_cls": True},
    "two_threads_a_session": {THREADS: 2},
    "rapidocr_defaults": {
        "Global.use_cls": True,
        "Det.limit_type": "min",
        "Det.limit_side_len": 736,
        "Rec.rec_batch_num": 6,
        THREADS: -1,
    },
}
#: Our reader with a thread a core: so many pages in work at once.
PAGES_AT_ONCE = (1, 2)


def draw(rows: list[tuple[str, ...]], size: int, pitch: float, xs: tuple[int, ...] = COLUMNS) -> Image.Image:
    """Draw rows of text on a white A4 page."""
    page = Image.new("RGB", A4, "white")
    pen, font = ImageDraw.Draw(page), page_font(size)
    for n, row in enumerate(rows):
        for x, text in zip(xs, row, strict=False):
            pen.text((x, MARGIN + n * pitch), text, "black", font)
    return page


def mixed_lines(seed: int) -> list[str]:
    """45 lines of different lengths."""
    return [line[: MIXED[n % len(MIXED)]].strip() for n, line in enumerate(page_lines(seed))]


def pages() -> dict[str, tuple[Image.Image, list[str]]]:
    """The kinds of page whose errors are counted, with the truth."""
    mixed = mixed_lines(1)
    narrow = textwrap.wrap(" ".join(page_lines(2)), 40)[:80]
    return {
        "full_page": (draw([(line,) for line in mixed], BODY, 34), mixed),
        "small_print": (draw([(line,) for line in mixed], SMALL, 18), mixed),
        "two_columns": (draw(list(zip(narrow[:40], narrow[40:], strict=True)), COLUMN_SIZE, 30), narrow),
    }


def error_rate(page: Page, truth: list[str]) -> float:
    """Edits per letter that turn what was read, in reading order, into what is printed."""
    want = "\n".join(truth)
    return Levenshtein.distance("\n".join(line.text for line in page.lines), want) / len(want)


def direct(ocr: Any, image: Image.Image) -> Page:
    """Read a page with RapidOCR alone."""
    found = ocr(to_pixels(image))
    if found.boxes is None:
        return Page()
    boxes = [(*quad.min(axis=0).tolist(), *quad.max(axis=0).tolist()) for quad in found.boxes]
    return arrange([Line(*one) for one in zip(found.txts, boxes, found.scores, strict=True)])


def reading(name: str, pages_at_once: int) -> Callable[[Image.Image], Page]:
    """What reads a page: RapidOCR with a set of options, or our reader when `pages_at_once` is not 0."""
    if pages_at_once:
        reader = PageReader(os.cpu_count() or 1)
        return lambda image: reader.read(image, threading.Event())
    ocr = new_ocr(OPTIONS[name])
    return lambda image: direct(ocr, image)


def measure(name: str, pages_at_once: int) -> list[tuple[str, float, str]]:
    """Measure errors, then time and memory."""
    read = reading(name, pages_at_once)
    rows = [(f"{kind}_cer", error_rate(read(image), truth), "edits/letter") for kind, (image, truth) in pages().items()]
    images = [draw([(line,) for line in mixed_lines(n)], BODY, 34) for n in range(REPEATS)]
    wall, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(max(pages_at_once, 1)) as slots:
        list(slots.map(read, images))
    rows.append(("wall", (time.perf_counter() - wall) / len(images), "s/page"))
    rows.append(("processor", (time.process_time() - cpu) / len(images), "s/page"))
    rows.append(("peak_memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB"))
    return rows


def results() -> Iterator[dict[str, Any]]:
    """Measure every set, each in a fresh process."""
    conditions: dict[str, Any] = {"page": "A4, 150 dpi, 45 lines of 25 to 72 letters, 22 px", "cores": os.cpu_count()}
    conditions |= {"python": platform.python_version(), "machine": platform.machine(), "chosen": _plain(OCR_OPTIONS)}
    sets = [(name, 0) for name in OPTIONS] + [(f"reader_{n}_at_once", n) for n in PAGES_AT_ONCE]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as fresh:
        for name, at_once in sets:
            run = conditions | {"pages_at_once": max(at_once, 1), "changed": OPTIONS.get(name, {})}
            for what, value, unit in fresh.submit(measure, name, at_once).result():
                yield {"name": f"ocr.{name}.{what}", "value": round(value, 4), "unit": unit, "conditions": run}


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if not name.endswith("model_path")}


if __name__ == "__main__":
    for row in results():
        print(json.dumps(row), flush=True)
