"""The figures themselves: each function measures one thing and yields it with its conditions."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import redis

from bench.pages import photo, speech_wav, text_page, text_pdf
from bench.service import Service, peak_rss_mb, running

INSTANT = "bench.engines:Instant"


@dataclass(frozen=True)
class Figure:
    """One measured value."""

    name: str
    value: float
    unit: str
    conditions: str


def overhead() -> Iterator[Figure]:
    """What the service costs around an engine that answers at once."""
    with running(INSTANT) as service:
        small = [photo(8, seed) for seed in range(20)]
        for picture in small:
            service.submit("ocr", picture, wait=10)
        yield _queue_overhead(service, small)
        yield _accept(service)
        yield _jobs_per_second(service, small)
        yield Figure(
            "api_rss_mb",
            round(service.rss_mb("api"), 1),
            "MB",
            "gunicorn's two processes after the load above, shared pages counted once",
        )


def _queue_overhead(service: Service, pictures: list[bytes], rounds: int = 200) -> Figure:
    waits = []
    for n in range(rounds):
        sent = time.time()
        job = service.submit("ocr", pictures[n % len(pictures)], wait=10)
        waits.append(float(job["result"]["text"]) - sent)
    conditions = f"idle service, 8 kB JPEG, POST sent to engine called, median of {rounds}"
    return Figure("queue_overhead_p50_ms", round(statistics.median(waits) * 1000, 2), "ms", conditions)


def _accept(service: Service, rounds: int = 100) -> Figure:
    pictures = [photo(200, 1_000 + seed) for seed in range(10)]
    times = []
    for n in range(rounds):
        begun = time.perf_counter()
        job = service.submit("ocr", pictures[n % len(pictures)])
        times.append(time.perf_counter() - begun)
        service.ended(job)
    conditions = f"POST of a 200 kB JPEG (multipart) to its 202, one at a time, median of {rounds}"
    return Figure("accept_p50_ms", round(statistics.median(times) * 1000, 2), "ms", conditions)


def _jobs_per_second(service: Service, pictures: list[bytes], jobs: int = 1_500, clients: int = 16) -> Figure:
    def one(n: int) -> None:
        service.ended(service.submit("ocr", pictures[n % len(pictures)], wait=30))

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, range(100)))
        begun = time.perf_counter()
        list(pool.map(one, range(jobs)))
        seconds = time.perf_counter() - begun
    conditions = (
        f"{jobs} one-part jobs, {clients} clients that POST and wait for the result, clients on the same machine"
    )
    return Figure("jobs_per_second", round(jobs / seconds, 1), "jobs/s", conditions)


def redis_time() -> Iterator[Figure]:
    """What jobs cost the one thing that is not multiplied."""
    with running(INSTANT) as service, tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / "d.pdf"
        text_pdf(document, 100, 7)
        service.ended(service.submit("ocr", document))
        yield _redis_time("redis_ms_per_job", service, "one-part jobs", [photo(8, 50)] * 500)
        yield _redis_time("redis_ms_per_part", service, "pages of documents of 100", [document] * 5, parts=100)


def _redis_time(name: str, service: Service, what: str, files: Sequence[bytes | Path], parts: int = 1) -> Figure:
    with redis.Redis.from_url(service.env["REDIS_URL"]) as server:
        before = _processor_seconds(server)
        for job in [service.submit("ocr", file) for file in files]:
            service.ended(job)
        took = _processor_seconds(server) - before
    count = len(files) * parts
    return Figure(name, round(took / count * 1000, 2), "ms", f"processor time of the embedded Valkey, {count} {what}")


def _processor_seconds(server: redis.Redis) -> float:
    used = cast(dict[str, float], server.info("cpu"))
    return used["used_cpu_user"] + used["used_cpu_sys"]


def memory_of_large_inputs() -> Iterator[Figure]:
    """Whether a large document or a long recording makes the processes grow, once each has worked on a small one."""
    with running("cpu", max_body_mb=300) as service, tempfile.TemporaryDirectory() as folder:
        page, document, speech, recording = (Path(folder) / name for name in ("p.pdf", "d.pdf", "s.wav", "r.wav"))
        text_pdf(page, 1, 6)
        text_pdf(document, 200, 7)
        speech_wav(speech, 60)
        speech_wav(recording, 7_200)
        service.ended(service.submit("ocr", page))
        service.ended(service.submit("asr", speech))
        roles = ("api", "infer", "side")
        before = {role: service.rss_mb(role) for role in roles}
        with peak_rss_mb(service, *roles) as peaks:
            service.ended(service.submit("ocr", document))
            service.ended(service.submit("asr", recording))
    growth = {role: round(peaks[role] - before[role], 1) for role in roles}
    conditions = (
        f"cpu engine, 200-page PDF, then 2 h WAV at 16 kHz ({recording_mb()} MB), after one such page and a minute of "
        f"speech; largest of {growth}"
    )
    yield Figure("worker_rss_growth_mb", max(growth.values()), "MB", conditions)


def recording_mb() -> int:
    """Megabytes of two hours of 16 kHz 16-bit mono."""
    return round(7_200 * 16_000 * 2 / 1e6)


def cpu_engine() -> Iterator[Figure]:
    """The `cpu` engine through the service beside RapidOCR called directly with the same options."""
    from bench import direct  # imports the engine, which the other figures must do without

    with running("cpu") as service:
        pages = [text_page(seed) for seed in range(8)]
        yield from direct.job_beside_direct(service, pages)
        with tempfile.TemporaryDirectory() as folder:
            document = Path(folder) / "d.pdf"
            text_pdf(document, 40, 11)
            with peak_rss_mb(service, "infer") as peaks:
                begun = time.perf_counter()
                service.ended(service.submit("ocr", document))
                per_page = (time.perf_counter() - begun) / 40
        yield Figure("worker_rss_mb", round(peaks["infer"], 1), "MB", "peak of the cpu worker over a 40-page PDF")
    yield from direct.speedup(per_page, pages)
