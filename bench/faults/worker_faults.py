"""Faults of the inference worker: killed, asked to stop, and killed again and again by one part."""

from __future__ import annotations

from bench.faults.run import Fault, Scene


def _kill(scene: Scene) -> None:
    scene.service.kill("infer")


KILLED = Fault("kill -9 of the inference worker in the middle of parts", _kill)
