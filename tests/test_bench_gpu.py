"""The GPU bench, as far as it goes without vLLM: its inputs, its service half, what it keeps and how that is shown."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench import table
from bench.__main__ import keep
from bench.__main__ import main as bench
from bench.gpu import watch
from bench.gpu.inputs import Inputs
from bench.gpu.outputs import difference
from bench.gpu.raw import Told
from bench.gpu.service import (
    latencies,
    mixed_per_second,
    one_at_a_time,
    only_gpu,
    per_second,
    rates_while_all_ran,
    whole_service,
)
from bench.service import ROLES, Service, is_of
from worker.engines.base import ReadPage, TranscribeClip
from worker.media import audio


@pytest.fixture(scope="module")
def inputs() -> Iterator[Inputs]:
    """A source of new pages and recordings."""
    with Inputs() as inputs:
        yield inputs


@pytest.fixture(scope="module")
def two_of_each() -> Iterator[Service]:
    """The service with two workers that have an engine, and two that prepare."""
    settings = {"max_in_flight": 8, "lease_seconds": 3}
    with whole_service(settings, gpus=("0", "1"), side_workers=2, engine="tests.engines:FixedLength") as service:
        yield service


def test_no_page_and_no_recording_comes_twice(inputs: Inputs) -> None:
    """Also not in a later measurement: a cache must not answer."""
    samples = [*inputs.pages(3), *inputs.clips(2), *inputs.pages(2), *inputs.clips(2)]

    assert len({sample.content for sample in samples}) == 9


def test_a_page_is_a4_at_150_dpi(inputs: Inputs) -> None:
    """As the caller sends it, and as the engine alone gets it."""
    (page,) = inputs.pages(1)

    task = page.task()

    assert isinstance(task, ReadPage)
    assert Image.open(io.BytesIO(page.content)).size == task.image.size == (1240, 1754)


def test_a_recording_is_one_clip_of_30_seconds(inputs: Inputs, tmp_path: Path) -> None:
    """Preparation cuts nothing off, so that the engine alone and the service do the same work."""
    for sample in inputs.clips(5):
        (tmp_path / "clip.wav").write_bytes(sample.content)
        with audio.open_recording(tmp_path / "clip.wav", max_seconds=60) as recording:
            (clip,) = recording.clips()
        task = sample.task()

        assert isinstance(task, TranscribeClip)
        assert 29.5 < clip.end - clip.start <= len(task.samples) / 16_000 == pytest.approx(29.9)


def test_the_service_is_measured_with_as_many_workers_as_asked(inputs: Inputs, two_of_each: Service) -> None:
    """All of them are ready before the clock starts; every job is waited for."""
    workers = two_of_each.http.get("/health").json()["workers"]

    assert sorted(bool(worker["engine"]) for worker in workers) == [False, False, True, True]
    assert per_second(two_of_each, inputs.pages(4), tokens=7) > 0
    assert one_at_a_time(two_of_each, inputs.clips(1), tokens=7) > 0
    assert len(latencies(two_of_each, inputs.clips(3), rate=50, tokens=7)) == 3


def test_a_service_is_watched_while_it_works(
    inputs: Inputs, two_of_each: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits, and how busy each role is; where it is not wanted, nothing is written."""
    monkeypatch.setattr(watch, "_EVERY_S", 0.1)
    file = tmp_path / "watched"
    with watch.watching(two_of_each, file, "pages"):
        per_second(two_of_each, inputs.pages(24), tokens=7)
    with watch.watching(two_of_each, None, "nothing"):
        pass

    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {line["about"] for line in lines} == {"pages"}
    assert set(lines[0]["cores"]) == {"api", "infer", "side"}
    assert max(line["cores"]["side"] for line in lines) > 0
    assert any(line["waiting"] for line in lines)


@pytest.mark.parametrize(
    ("told", "role"),
    [
        ("/usr/bin/python3 -m api", "api"),
        ("gunicorn: worker [phi4-api]", "api"),
        ("/usr/bin/python3 -m worker infer", "infer"),
        ("[celeryd: infer-host-7-a1b2@host:MainProcess] -active- (infer)", "infer"),
        ("[celeryd: side-host-8-a1b2@host:MainProcess] -active- (side)", "side"),
        ("VLLM::EngineCore", None),
        ("", None),
    ],
)
def test_a_process_is_known_by_its_command_or_its_title(told: str, role: str | None) -> None:
    """With vLLM comes a package with which Celery and gunicorn give themselves titles."""
    assert [name for name, (end, title) in ROLES.items() if is_of(told, end, title)] == [role] * bool(role)


def test_what_another_precision_changes_is_told_by_token() -> None:
    """The share of tokens that the judge would have written, and how far it is off on average."""
    written = [Told([5, 6], [-0.1, -0.2], [1, 1]), Told([7, 8], [-0.3, -0.4], [1, 1])]
    judged = [Told([5, 6], [-0.1, -0.6], [1, 3]), Told([7, 8], [-0.3, -0.4], [1, 1])]

    found = difference(written, judged)

    assert (found.same, found.change) == (0.75, pytest.approx(0.1))


def test_pages_and_clips_are_measured_together(inputs: Inputs, two_of_each: Service) -> None:
    """Each with answers of its own length."""
    kinds = {"pages": inputs.pages(3), "clips": inputs.clips(2)}

    rates = mixed_per_second(two_of_each, kinds, tokens={"pages": 5, "clips": 6})

    assert list(rates) == ["pages", "clips"]
    assert rates["pages"] > 0


def test_what_is_left_of_a_mix_is_cancelled(inputs: Inputs, two_of_each: Service) -> None:
    """When all of the first kind are through, nothing of the others holds up what is measured next."""
    kinds = {"pages": inputs.pages(1), "clips": inputs.clips(4) * 50}

    rates = mixed_per_second(two_of_each, kinds, tokens={"pages": 5, "clips": 6})

    assert rates["pages"] > 0
    listed = two_of_each.http.get("/v1/jobs", params={"status": "in_progress"}).json()
    assert listed["data"] == []
    assert not any(two_of_each.http.get("/health").json()["queues"].values())


class Failing(Service):
    """A service whose recordings have failed before the pages are through."""

    has_clip = threading.Event()

    def submit(self, job_type: str, file: bytes | Path, *, wait: int = 0, **fields: str) -> dict[str, Any]:
        """Answer with the job's end; with a page's once there is a clip."""
        if job_type == "asr":
            self.has_clip.set()
        assert self.has_clip.wait(30)
        status = "completed" if job_type == "ocr" else "failed"
        return {"id": job_type, "status": status, "usage": {"completion_tokens": 5}, "completed_at": 1}

    def cancel(self, job: dict[str, Any]) -> dict[str, Any]:
        """Leave a job that has ended as it is."""
        return job


def test_a_job_of_a_mix_that_fails_ends_the_run(inputs: Inputs, service: Any) -> None:
    """Of whichever kind: a figure without it would be wrong."""
    kinds = {"pages": inputs.pages(1), "clips": inputs.clips(1)}

    with pytest.raises(RuntimeError, match="asr failed"):
        mixed_per_second(Failing("", service.http, {}), kinds, tokens={"pages": 5, "clips": 5})


def test_an_answer_of_another_length_ends_the_run(inputs: Inputs, service: Any) -> None:
    """A figure for less work than was asked for would be wrong."""
    with pytest.raises(RuntimeError, match="not 7 tokens"):
        per_second(Service("", service.http, {}), inputs.pages(1), tokens=7)


@pytest.mark.parametrize("before", ["3,4", None])
def test_the_visible_gpus_are_put_back(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is started later in the same process sees all of them again."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    with only_gpu("3"):
        inside = os.environ["CUDA_VISIBLE_DEVICES"]

    assert (inside, os.environ.get("CUDA_VISIBLE_DEVICES")) == ("3", before)


@pytest.mark.parametrize(
    ("pages", "clips", "rates"),
    [
        pytest.param([101, 102, 103, 110], [102, 103, 104], {"pages": 0.75, "clips": 0.75}, id="clips were through"),
        pytest.param([101, 102, 103, 110], [101, 111], {"pages": 0.4, "clips": 0.1}, id="a clip was left over"),
        pytest.param([101, 102, 103, 104], [110, 111, 120], {"pages": 1.0, "clips": 0.0}, id="pages starved the clips"),
        pytest.param([101, 102, 103, 104], [], {"pages": 1.0, "clips": 0.0}, id="no clip at all"),
        pytest.param([100] * 4, [100] * 3, {"pages": 4.0, "clips": 3.0}, id="all within a second"),
    ],
)
def test_a_mix_counts_only_while_there_is_one(pages: list[float], clips: list[float], rates: dict[str, float]) -> None:
    """What ends after the other kind is through had the engine to itself."""
    ends = {"pages": pages, "clips": clips}

    assert rates_while_all_ran(ends, began=100, numbers={"pages": 4, "clips": 3}) == rates


def test_the_table_names_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With driver, cores and the versions that speed depends on."""
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr("bench.__main__.__file__", str(tmp_path / "bench" / "__main__.py"))
    (tmp_path / "bench").mkdir()
    figure = {"name": "stock_pages_per_second", "value": 5.5, "unit": "pages/s", "conditions": "96 in flight"}

    keep(
        [figure],
        "gpu-2x-h200",
        versions={"vllm": "0.26.0", "torch": "2.11.0", "celery": "5.7.0"},
        machine={"gpus": ["NVIDIA H200", "NVIDIA H200"], "driver": "580.65"},
    )

    cores = json.loads((tmp_path / "bench/results/gpu-2x-h200.json").read_text())["machine"]["cores"]
    written = table.table()
    assert "| stock_pages_per_second | 5.5 pages/s | 2 × H200: 96 in flight |" in written
    assert f", 2 × NVIDIA H200 (driver 580.65), {cores} cores of " in written
    assert written.endswith(", vllm 0.26.0, torch 2.11.0.")


def test_a_run_in_parts_keeps_what_the_same_machine_gave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure that is measured again takes the place of the old one; another machine's or version's all go."""
    monkeypatch.setattr("bench.__main__.__file__", str(tmp_path / "__main__.py"))

    def kept(name: str, value: float, **versions: str) -> dict[str, float]:
        keep([{"name": name, "value": value}], "gpu", versions=versions, machine={"gpus": ["H200"]}, in_part=True)
        figures = json.loads((tmp_path / "results/gpu.json").read_text())["figures"]
        return {figure["name"]: figure["value"] for figure in figures}

    assert kept("stock", 5.0, vllm="0.26.0") == {"stock": 5.0}
    assert kept("tuned", 9.0, vllm="0.26.0") == {"stock": 5.0, "tuned": 9.0}
    assert kept("stock", 6.0, vllm="0.26.0") == {"tuned": 9.0, "stock": 6.0}
    assert kept("tuned", 8.0, vllm="0.32.0") == {"tuned": 8.0}


def test_an_unknown_measurement_is_refused_with_those_there_are() -> None:
    """Also those that take arguments of their own."""
    with pytest.raises(SystemExit, match=r"unknown: speed; there are: overhead, .*, gpu, quality"):
        bench(["speed"])
