"""RapidOCR called directly, with the options the `cpu` engine uses, as the measure for jobs."""

from __future__ import annotations

import io
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from PIL.Image import Image
from rapidocr import RapidOCR

from bench.figures import Figure
from bench.service import Service
from worker.engines.ocr import new_ocr, to_pixels

_CORES = os.cpu_count() or 1
_PAGE = "A4 page, 45 lines, 150 dpi"


def job_beside_direct(service: Service, pages: list[Image]) -> Iterator[Figure]:
    """One page as a job and directly, in turn."""
    ocr = _with_threads(_CORES)
    ocr(to_pixels(pages[0]))
    service.ended(service.submit("ocr", _png(pages[0])))
    direct, job = [], []
    for page in pages:
        pixels, file = to_pixels(page), _png(page)
        direct.append(_seconds(lambda pixels=pixels: ocr(pixels)))
        job.append(_seconds(lambda file=file: service.ended(service.submit("ocr", file, wait=60))))
    conditions = f"{_PAGE}, medians of {len(pages)} each, in turn; direct: same options, {_CORES} threads"
    yield Figure("ocr_direct_page_s", round(statistics.median(direct), 3), "s", conditions)
    yield Figure("ocr_job_page_s", round(statistics.median(job), 3), "s", conditions)
    ratio = statistics.median(j / d for j, d in zip(job, direct, strict=True))
    yield Figure("ocr_job_to_direct_ratio", round(ratio, 3), "ratio", f"{conditions}; median of the pairs")


def speedup(job_seconds_a_page: float, pages: list[Image]) -> Iterator[Figure]:
    """A 40-page job's time per page against the best that direct calls reach."""
    pixels = [to_pixels(page) for page in pages]
    one_by_one = _with_threads(_CORES)
    one_by_one(pixels[0])
    in_turn = _seconds(lambda: [one_by_one(p) for p in pixels]) / len(pixels)
    readers = [_with_threads(1) for _ in range(_CORES)]
    shares = [pixels[n::_CORES] for n in range(_CORES)]
    with ThreadPoolExecutor(_CORES) as pool:
        spent = _seconds(lambda: list(pool.map(lambda reader, share: [reader(p) for p in share], readers, shares)))
    at_once = spent / len(pixels)
    conditions = (
        f"40-page PDF as one job ({job_seconds_a_page:.2f} s a page) against direct calls on {len(pages)} such pages: "
        f"one page with {_CORES} threads {in_turn:.2f} s, {_CORES} pages with one thread each {at_once:.2f} s a page; "
        "above 1 the job is faster"
    )
    best = min(in_turn, at_once)
    yield Figure("pdf_40_pages_speedup", round(best / job_seconds_a_page, 3), "ratio", conditions)


def _with_threads(threads: int) -> RapidOCR:
    return cast(RapidOCR, new_ocr({"EngineConfig.onnxruntime.intra_op_num_threads": threads}))


def _png(page: Image) -> bytes:
    file = io.BytesIO()
    page.save(file, "PNG")
    return file.getvalue()


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
