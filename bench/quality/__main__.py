"""`python -m bench.quality FOLDER [--url URL]` scores the engine of a running service on files with known answers.

Without `--url` the service is started here with the engine that PHI4_ENGINE names. FOLDER holds `answers.jsonl` (one
`{"file", "type", "answers", "params"}` a line), a LibriSpeech set, or DocVQA's annotations and images. Compare with the
model card of Phi-4-multimodal-instruct: 6.14 % WER on the OpenASR sets, 93.2 ANLS on DocVQA.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import track

from bench.__main__ import keep
from bench.figures import Figure
from bench.quality.cases import Case, UnknownFolder, read
from bench.quality.score import score
from bench.service import running
from phi4.settings import load


@dataclass(frozen=True)
class Said:
    """What came back for a case: the words, or why there are none."""

    text: str = ""
    engine: str = ""
    model: str = ""
    fault: str = ""


def run(http: httpx.Client, cases: Sequence[Case], *, in_flight: int) -> list[Said]:
    """Send every case as a job; one that fails is an empty answer with its reason."""
    with ThreadPoolExecutor(in_flight) as pool:
        answers = pool.map(lambda case: _ask(http, case), cases)
        return list(track(answers, "asking", len(cases), console=Console(stderr=True), transient=True))


def _ask(http: httpx.Client, case: Case) -> Said:
    params = case.params | ({"format": "text"} if case.type == "ocr" else {})
    try:
        form = {"type": case.type, "params": json.dumps(params)}
        posted = http.post("/v1/jobs", data=form, files={"file": (case.file.name, case.file.read_bytes())})
        job = posted.raise_for_status().json()
        while job["status"] in ("queued", "in_progress"):
            job = http.get(f"/v1/jobs/{job['id']}", params={"wait": 20}).raise_for_status().json()
    except (OSError, httpx.HTTPError) as error:
        return Said(fault=f"{type(error).__name__}: {error}")
    if job["status"] != "completed":
        return Said(fault=str(job.get("error", {}).get("message", job["status"])))
    result = job["result"]
    return Said(str(result["answer" if case.type == "vqa" else "text"]), job["engine"], job["model"])


def figures(folder: Path, cases: Sequence[Case], answers: Sequence[Said]) -> Iterator[Figure]:
    """Score the answers, and count those that never came."""
    engine = next((f"{said.engine} ({said.model})" for said in answers if said.engine), "no engine")
    for measured in score([(case, said.text) for case, said in zip(cases, answers, strict=True)]):
        kind = measured.name.partition("_")[0]
        number = sum(case.type == kind for case in cases)
        conditions = f"{engine}, {number} of {folder.name}, {measured.how}"
        yield Figure(measured.name, round(measured.percent, 2), "%", conditions)
    yield Figure(
        "quality_failed", sum(bool(said.fault) for said in answers), "cases", f"of {len(cases)}; they count as empty"
    )


@contextmanager
def _service(url: str) -> Iterator[httpx.Client]:
    if url:
        with httpx.Client(base_url=url, timeout=120) as http:
            yield http
    else:
        with running(load().engine) as service:
            yield service.http


def main() -> None:
    """Score, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", default="", help="a running service; by default one is started")
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--limit", type=int, help="only the first N cases")
    asked: Any = parser.parse_args()
    try:
        cases = read(asked.folder)[: asked.limit]
    except UnknownFolder as error:
        sys.exit(str(error))
    with _service(asked.url) as http:
        answers = run(http, cases, in_flight=asked.in_flight)
    for case, said in zip(cases, answers, strict=True):
        if said.fault:
            print(f"{case.file}: {said.fault}", file=sys.stderr)
    measured = [asdict(figure) for figure in figures(asked.folder, cases, answers)]
    for figure in measured:
        print(json.dumps(figure))
    engine = next((said.engine for said in answers if said.engine), "none")
    keep(measured, f"quality-{engine}-{asked.folder.resolve().name}")


if __name__ == "__main__":
    main()
