"""Faults of vLLM under its worker, on a tiny checkpoint and vLLM's CPU build; only where that is installed."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.faults.mix import Kind
from bench.faults.processes import ROOT, Processes, processes, until
from bench.faults.run import Fault, Scene
from tests.scripted_jobs import document, picture
from tests.tiny_phi4 import environment
from tests.vllm_on_cpu import worker_environment

_SHORT = {"max_tokens": 12}
_LONG = {"max_tokens": 300}


@contextmanager
def _on_vllm(**env: str) -> Iterator[Processes]:
    from tests.tiny_phi4.make import make_tiny  # needs torch

    with tempfile.TemporaryDirectory(prefix="phi4-tiny-") as folder:
        tiny = make_tiny(Path(folder) / "tiny")
        own = environment(tiny) | worker_environment(tiny) | {"PHI4_ENGINE": "vllm"}
        with processes(None, **own | env) as service:
            yield service


def _kill_core(scene: Scene) -> None:
    """Kill EngineCore; its worker notices, gives its parts back and ends. The fault lasts until the next one is ready.

    How long that takes says more of the machine than of the service: 33 to 55 s on two cores.
    """
    worker = psutil.Process(scene.service.running["infer"].pid)
    core = max(worker.children(), key=lambda child: child.memory_info().rss)
    core.kill()
    killed_at = time.monotonic()
    # What is sent meanwhile would only tell how long an engine takes to start.
    scene.mix.end()
    scene.service.await_restart("infer", worker.pid)
    until(lambda: _is_ready(scene), seconds=300, what="the new engine")
    scene.over()
    print(f"  the new engine was ready {scene.over_at - killed_at:.1f} s after the kill", flush=True)


def _is_ready(scene: Scene) -> bool:
    """Whether the inference worker that runs now takes work."""
    pid = scene.service.running["infer"].pid
    workers = scene.http.get("/health").json()["workers"]
    return any(f"-{pid}-" in worker["name"] and worker["stage"] == "ready" for worker in workers)


def _kind(type: str, params: Mapping[str, object], files: tuple[bytes, ...], parts: int) -> Kind:
    return Kind(type, "", files, parts, params=json.dumps(params))


CORE_KILLED = Fault(
    "kill -9 of EngineCore under the vLLM worker (tiny checkpoint on CPU; recovery from the new engine's being ready)",
    _kill_core,
    kinds=(
        _kind("ocr", _SHORT, (picture(),), 1),
        _kind("ocr", _LONG, (document(300, 400),), 2),
        _kind("vqa", {"question": "?", **_SHORT}, (picture(1),), 1),
        _kind("asr", _SHORT, ((ROOT / "examples" / "inputs" / "talk.mp3").read_bytes(),), 2),
    ),
    service=_on_vllm,
)
