"""Faults of the blob store: an input gone, an input changed, a disk that is full."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from bench.faults.mix import Accepted, Kind
from bench.faults.processes import until
from bench.faults.run import Fault, Scene
from tests.scripted_jobs import document, picture

_HIT = (
    Kind("ocr", "hit", (picture(20),), 1, ends="failed"),
    Kind("ocr", "hit", (document(300, 400),), 2, ends="failed"),
    Kind("vqa", "hit", (picture(21),), 1, ends="failed"),
)


def _damage(scene: Scene, how: Callable[[Path], None]) -> None:
    """Damage the files of some jobs while the worker that reads them next stands still."""
    reader = scene.chance.choice(["side", "infer"])
    scene.service.signal(reader, signal.SIGSTOP)
    try:
        for kind in _HIT:
            job = scene.mix.send(scene.http, kind)
            assert job is not None
            if reader == "infer":
                until(lambda job=job: _is_prepared(scene, job), seconds=30, what="the preparation")  # type: ignore[misc]
            for path in _files(scene, job):
                how(path)
    finally:
        scene.service.signal(reader, signal.SIGCONT)


def _is_prepared(scene: Scene, job: Accepted) -> bool:
    return "prepare_ms" in scene.http.get(f"/v1/jobs/{job.id}").json()["timings"]


def _files(scene: Scene, job: Accepted) -> list[Path]:
    return [path for path in (scene.service.folder / "blobs").glob(f"*/{job.id}/**/*") if path.is_file()]


def _remove(scene: Scene) -> None:
    _damage(scene, Path.unlink)


def _tamper(scene: Scene) -> None:
    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[scene.chance.randrange(len(content))] ^= 1
        path.write_bytes(content)

    _damage(scene, change)


def _told_as(code: str) -> Callable[[Scene], list[str]]:
    def wrong(scene: Scene) -> list[str]:
        hit = [one for one in scene.mix.accepted if one.kind in _HIT]
        jobs = [scene.http.get(f"/v1/jobs/{one.id}").json() for one in hit]
        errors = [(job.get("error") or {"code": job["status"]})["code"] for job in jobs]
        return [f"{one.id} failed with {found}" for one, found in zip(hit, errors, strict=True) if found != code]

    return wrong


MISSING = Fault("blobs of waiting jobs gone: these fail as blob_missing", _remove, after=_told_as("blob_missing"))
TAMPERED = Fault("a bit of waiting jobs' blobs changed: blob_tampered", _tamper, after=_told_as("blob_tampered"))
