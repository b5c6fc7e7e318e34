"""`python -m bench quality SET… [--url URL]` scores the engine of a running service on files with known answers.

Without `--url` the service is started here with the engine that PHI4_ENGINE names. README.md beside this file says what
SET may be.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx
from rich.console import Console
from rich.progress import track

from bench.__main__ import SERVICE_PACKAGES, keep
from bench.figures import Figure
from bench.quality.cases import Case, UnknownFolder, read
from bench.quality.score import score
from bench.service import running
from cli.delivery import faults_of
from phi4.settings import load

#: A service where too many wait already answers at once.
_PAUSE_S = 0.2
_SCORING = ("jiwer", "rapidfuzz", "whisper-normalizer")


@dataclass(frozen=True)
class Said:
    """What came back for a case: the words, and why there are none or some are missing."""

    text: str = ""
    engine: str = ""
    model: str = ""
    fault: str = ""


def run(http: httpx.Client, cases: Sequence[Case], *, in_flight: int, after_question: str = "") -> list[Said]:
    """Send every case as a job; one that fails is an empty answer with its reason."""
    with ThreadPoolExecutor(in_flight) as pool:
        answers = pool.map(lambda case: _ask(http, case, after_question), cases)
        return list(track(answers, "asking", len(cases), console=Console(stderr=True), transient=True))


def _ask(http: httpx.Client, case: Case, after_question: str) -> Said:
    try:
        form = {"type": case.type, "params": json.dumps(_params(case, after_question))}
        posted = http.post("/v1/jobs", data=form, files={"file": (case.file.name, case.file.read_bytes())})
        job = _answered(posted)
        while job["status"] in ("queued", "in_progress", "cancelling"):
            time.sleep(_PAUSE_S)
            job = _answered(http.get(f"/v1/jobs/{job['id']}", params={"wait": 20}))
        faults = "; ".join(fault.message for fault in faults_of(job))
        if job["status"] != "completed":
            return Said(fault=faults)
        text = str(job["result"]["answer" if case.type == "vqa" else "text"])
        return Said(text, job["engine"], job["model"], faults)
    except (OSError, httpx.HTTPError, ValueError, KeyError) as error:
        return Said(fault=f"{type(error).__name__}: {error}")


def _params(case: Case, after_question: str) -> dict[str, Any]:
    if case.type == "ocr":
        return {"format": "text"} | case.params
    if case.type == "vqa" and after_question:
        return case.params | {"question": f"{case.params['question']}\n{after_question}"}
    return case.params


def _answered(response: httpx.Response) -> dict[str, Any]:
    """The job in a response. Raises `ValueError` with the service's own words when it refused."""
    if response.is_error:
        raise ValueError(f"{response.status_code} {response.text[:300]}")
    return dict(response.json())


def figures(name: str, cases: Sequence[Case], answers: Sequence[Said], *, after_question: str = "") -> Iterator[Figure]:
    """Score the answers, and count those that never came or came in part."""
    engine = next((f"{said.engine} ({said.model})" for said in answers if said.engine), "no engine")
    for measured in score([(case, said.text) for case, said in zip(cases, answers, strict=True)]):
        kind = measured.name.partition("_")[0]
        sources = sorted({case.source for case in cases if case.type == kind and case.source})
        asked = f'asked with "{after_question}"' if kind == "vqa" and after_question else ""
        conditions = [
            engine,
            f"{measured.cases} case{'s' * (measured.cases != 1)} of set {name}",
            *sources,
            measured.how,
            asked,
        ]
        yield Figure(measured.name, round(measured.percent, 2), "%", ", ".join(filter(None, conditions)))
    failed = sum(bool(said.fault) for said in answers)
    yield Figure("quality_failed", failed, "cases", f"of {len(cases)} of set {name}; what is missing counts as empty")


@contextmanager
def _service(url: str) -> Iterator[httpx.Client]:
    if url:
        with httpx.Client(base_url=url, timeout=120) as http:
            yield http
    else:
        with running(load().engine) as service:
            yield service.http


def mean(by_set: Mapping[str, Sequence[Figure]]) -> Iterator[Figure]:
    """Average each score over the sets that have it, a set counting as much as another (as the leaderboard does)."""
    names = dict.fromkeys(figure.name for found in by_set.values() for figure in found if figure.unit == "%")
    for name in names:
        scores = {key: figure.value for key, found in by_set.items() for figure in found if figure.name == name}
        if len(scores) > 1:
            yield Figure(f"{name}_mean", round(fmean(scores.values()), 2), "%", f"mean over sets {', '.join(scores)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Score, print, keep."""
    asked = _parser().parse_args(arguments)
    try:
        sets = {_name(path, asked.set): read(path, asked.images)[: asked.limit] for path in asked.set}
    except (UnknownFolder, OSError) as error:
        sys.exit(str(error))
    by_set: dict[str, list[Figure]] = {}
    engine = "none"
    with _service(asked.url) as http:
        for name, cases in sets.items():
            answers = run(http, cases, in_flight=asked.in_flight, after_question=asked.after_question)
            engine = next((said.engine for said in answers if said.engine), engine)
            _name_faults(cases, answers)
            by_set[name] = list(figures(name, cases, answers, after_question=asked.after_question))
            _tell(by_set[name], f"quality-{engine}-{name}", elsewhere=bool(asked.url))
    if len(by_set) > 1:
        _tell(list(mean(by_set)), f"quality-{engine}-mean", elsewhere=bool(asked.url))


def _name(path: Path, among: Sequence[Path]) -> str:
    """Call a set by its own name, and by its folder's too where others are called so."""
    shared = [other for other in among if other.resolve().stem == path.resolve().stem]
    return path.resolve().stem if len(shared) == 1 else f"{path.resolve().parent.name}-{path.resolve().stem}"


def _name_faults(cases: Sequence[Case], answers: Sequence[Said]) -> None:
    for case, said in zip(cases, answers, strict=True):
        if said.fault:
            print(f"{case.file}: {said.fault}", file=sys.stderr)


def _tell(found: Sequence[Figure], name: str, *, elsewhere: bool) -> None:
    """Print figures, and keep them for the tables."""
    measured = [asdict(figure) for figure in found]
    for figure in measured:
        print(json.dumps(figure), flush=True)
    machine = {"service": "elsewhere"} if elsewhere else {}
    keep(measured, name, versions=_versions(elsewhere=elsewhere), machine=machine)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench quality", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("set", type=Path, nargs="+", help="a folder, or a file with DocVQA's annotations")
    parser.add_argument("--images", type=Path, help="where DocVQA's pictures are; by default beside the annotations")
    parser.add_argument("--after-question", default="", help="words put after every question, e.g. to ask for brevity")
    parser.add_argument("--url", default="", help="a running service; by default one is started")
    parser.add_argument("--in-flight", type=int, default=8, help="jobs at once")
    parser.add_argument("--limit", type=int, help="only the first N cases")
    return parser


def _versions(*, elsewhere: bool) -> dict[str, str]:
    """What the scores depend on; of a service elsewhere only its engine's name is known."""
    return {name: version(name) for name in (*_SCORING, *(() if elsewhere else SERVICE_PACKAGES))}


if __name__ == "__main__":
    main()
