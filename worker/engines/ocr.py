"""RapidOCR as this service uses it: its options, and the reading of one page by several threads."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import flag_override
from onnxruntime import InferenceSession, SessionOptions
from PIL.Image import Image
from rapidocr import RapidOCR
from rapidocr.utils.process_img import get_rotate_crop_image

from phi4.errors import Cancelled
from worker.engines.base import Line
from worker.engines.layout import Box, Page, arrange

Pixels = NDArray[np.uint8]  #: height × width × 3, blue-green-red
Quad = NDArray[np.float32]  #: 4 × (x, y): left top, right top, right bottom, left bottom


def _model(name: str) -> str:
    package = importlib.util.find_spec("rapidocr")
    folders = (package.submodule_search_locations if package else None) or []
    return str(Path(next(iter(folders), "")) / "models" / name)


#: Chosen with bench/ocr_options.py. A path to a model keeps RapidOCR from ever looking for one to download.
OCR_OPTIONS: dict[str, Any] = {
    "Global.log_level": "critical",
    "Global.use_cls": False,  # It turns lines upside down that stood right, and images come upright.
    "Det.model_path": _model("PP-OCRv6_det_small.onnx"),
    "Det.limit_type": "max",
    "Det.limit_side_len": 1280,
    "Rec.model_path": _model("PP-OCRv6_rec_small.onnx"),
    "Rec.rec_batch_num": 1,  # More lines at once are padded to the longest: slower, and twice the memory.
    # One thread a session and lines spread over threads beat sessions with threads, which spin while they wait.
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
}
#: How sure the recogniser must be of a line, 0 to 1.
MIN_CONFIDENCE = 0.5
#: How many times taller than wide a page may be before it is searched in pieces.
MAX_ASPECT = 2.0
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  #: from malloc.h
#: Bytes: the largest piece that glibc takes from its heap, and how much it may keep free at the heap's end.
_LARGEST_PIECE, _MOST_KEPT = 32 << 20, 256 << 20
#: Lines at least this many times as wide as high tell how the page is tilted.
_TELLING_ASPECT = 3.0


def new_ocr(options: Mapping[str, Any] | None = None) -> Any:
    """Make a RapidOCR with `OCR_OPTIONS`, some of them replaced by `options`; what it returns depends on them."""
    return RapidOCR(params=OCR_OPTIONS | dict(options or {}))


def new_detector(threads: int) -> Any:
    """Make a RapidOCR that finds the lines of a page, on so many threads, which do not spin while they wait.

    With two on two cores a page alone takes 13 % less time than with one, and several at once as much as before.
    """
    ocr = new_ocr({"Global.use_rec": False})
    _use(ocr.cfg.Det, _session("Det.model_path", threads=threads, plans=True))
    return ocr


def new_recogniser() -> Any:
    """Make a RapidOCR that reads one line, and plans no memory.

    ONNX Runtime would keep a plan for each width of a line and take the line's memory in one piece, up to 54 MB instead
    of 36, whose different sizes leave holes: a worker's peak over 12 to 18 pages was 880 to 1 040 MB, and is 690 to
    800 MB without plans, with 1 to 4 % more time a page. The search for lines keeps its plan: pages mostly have one
    size, and without it takes a fifth more time.
    """
    ocr = new_ocr({"Global.use_det": False, "Global.use_preprocess_img": False})
    _use(ocr.cfg.Rec, _session("Rec.model_path", threads=1, plans=False))
    return ocr


def _session(model: str, *, threads: int, plans: bool) -> InferenceSession:
    options = SessionOptions()
    options.enable_mem_pattern = plans
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    return InferenceSession(OCR_OPTIONS[model], options, providers=["CPUExecutionProvider"])


def _use(part: Any, session: InferenceSession) -> None:
    """Let a part of RapidOCR, which is made when it is first needed, work with this session."""
    with flag_override(part, "allow_objects", True):
        part.session = session


def _keep_one_heap() -> None:
    """Let glibc keep one heap, not up to eight a core that each hold on to the most they ever needed, and keep it all.

    Two heaps are 100 MB less than that, and one is 100 MB less than two (a worker's peak over 16 pages, 840 and 740).
    Threads that ran before keep theirs, so a worker of `phi4 up` is started with one (MALLOC_ARENA_MAX). Unless told
    otherwise, glibc gives the kernel what is free at the end of the heap, and takes large pieces from it: 150 MB a
    page, zeroed anew. Kept, they save 5 to 8 % of a page's processor time, and its peak is 600 → 510 MB.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_PIECE)
        mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)


def to_pixels(image: Image) -> Pixels:
    """Give the pixels of an RGB image in the order OpenCV wants."""
    return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])


class PageReader:
    """Finds the lines of a page, then reads them on `threads` threads; `read` may be called by many threads at once."""

    def __init__(self, threads: int) -> None:
        _keep_one_heap()
        # The search for lines takes the most memory: never for two pages at once.
        self._searcher = ThreadPoolExecutor(1, thread_name_prefix="page-search")
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix="line-reader")
        self._detector = new_detector(threads)
        self._recogniser = new_recogniser()

    def read(self, image: Image, cancelled: threading.Event) -> Page:
        """Read one page. Raises `Cancelled` between two lines."""
        pixels = to_pixels(image)
        strips = [self._searcher.submit(self._detect, pixels[a:b], a, cancelled) for a, b in cuts(pixels)]
        quads = [quad for strip in strips for quad in strip.result()]
        jobs = [self._readers.submit(self._recognise, pixels, quad, cancelled) for quad in quads]
        read = [(quad, *job.result()) for quad, job in zip(quads, jobs, strict=True)]
        sure = [(quad, text, score) for quad, text, score in read if text and score >= MIN_CONFIDENCE]
        lines = [Line(text, _around(quad), round(score, 4)) for quad, text, score in sure]
        return arrange(lines, levelled([quad for quad, _, _ in sure]))

    def close(self) -> None:
        """End the threads, after the lines they are reading."""
        self._searcher.shutdown(cancel_futures=True)
        self._readers.shutdown(cancel_futures=True)

    def _detect(self, pixels: Pixels, top: int, cancelled: threading.Event) -> list[Quad]:
        """Find the lines of a strip of the page that begins at `top`."""
        if cancelled.is_set():
            raise Cancelled
        boxes = self._detector(pixels).boxes
        return [] if boxes is None else [np.asarray(quad + np.array([0, top]), np.float32) for quad in boxes]

    def _recognise(self, pixels: Pixels, quad: Quad, cancelled: threading.Event) -> tuple[str, float]:
        """Read one line: its text and how sure that is."""
        if cancelled.is_set():
            raise Cancelled
        crop = get_rotate_crop_image(pixels, quad.copy())
        if 0 in crop.shape:
            return "", 0.0
        found = self._recogniser(crop)
        return (str(found.txts[0]).strip(), float(found.scores[0])) if found.txts else ("", 0.0)


def cuts(pixels: Pixels) -> list[tuple[int, int]]:
    """Cut a very long page (a till receipt) into strips, each between two of its emptiest rows."""
    height, width = pixels.shape[:2]
    if height <= MAX_ASPECT * width:
        return [(0, height)]
    ink = pixels.min(axis=2).std(axis=1)
    edges, step = [0], round(1.4 * width)
    while height - edges[-1] > MAX_ASPECT * width:
        reach = slice(edges[-1] + step * 3 // 4, edges[-1] + step)
        edges.append(reach.start + int(np.argmin(ink[reach])))
    return list(zip(edges, [*edges[1:], height], strict=True))


def _around(quad: Quad) -> Box:
    (left, top), (right, bottom) = quad.min(axis=0), quad.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def levelled(quads: list[Quad]) -> list[Box]:
    """Give boxes as they would be were the page photographed straight: one row's boxes at one height."""
    if not quads:
        return []
    corners = np.stack(quads)
    centres = corners.mean(axis=1)
    heights = np.linalg.norm(corners[:, 3] - corners[:, 0], axis=1)
    tilt = _tilt(corners)
    pivot = (corners[..., 0].min() + corners[..., 0].max()) / 2
    rows = centres[:, 1] - tilt(centres[:, 1]) * (centres[:, 0] - pivot)
    lefts, rights = corners[..., 0].min(axis=1), corners[..., 0].max(axis=1)
    sides = zip(lefts, rows - heights / 2, rights, rows + heights / 2, strict=True)
    return [(float(a), float(b), float(c), float(d)) for a, b, c, d in sides]


def _tilt(corners: NDArray[np.float32]) -> np.poly1d:
    """Fit how much lines fall per pixel to the right, as it changes down the page (perspective)."""
    across = corners[:, 1] + corners[:, 2] - corners[:, 0] - corners[:, 3]
    heights = np.linalg.norm(corners[:, 3] - corners[:, 0], axis=1)
    telling = across[:, 0] / 2 > _TELLING_ASPECT * heights
    if not telling.any():
        return np.poly1d([0.0])
    slopes, weights = across[telling, 1] / across[telling, 0], across[telling, 0]
    middles = corners[telling].mean(axis=1)[:, 1]
    if len(slopes) < 4 or np.ptp(middles) < 4 * heights.max():
        return np.poly1d([float(np.average(slopes, weights=weights))])
    return np.poly1d(np.polyfit(middles, slopes, 1, w=weights))
