"""How the engine of a worker is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines import Scripted
from worker.engines.choose import EngineUnavailable, create_engine, has_cuda_device


def test_auto_falls_back_to_the_cpu_and_says_why() -> None:
    """There is no vLLM engine in this version, so `auto` is the cpu engine with a reason for the log."""
    engine, reason = create_engine("auto", threads=3)

    assert (engine.name, engine.model, engine.slots) == ("cpu", "rapidocr+moonshine-tiny-en", 2)
    assert engine.modalities == {"vision", "speech"}
    assert reason.startswith(("cpu: no CUDA device", "cpu: a CUDA device"))


def test_an_engine_of_ones_own_is_imported() -> None:
    """`package.module:Factory` is called without arguments."""
    engine, reason = create_engine("tests.engines:Scripted")

    assert isinstance(engine, Scripted)
    assert "tests.engines:Scripted" in reason


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vllm", "no vLLM engine yet"),
        ("gpu", 'there are "auto", "cpu"'),
        ("", 'there are "auto", "cpu"'),
        ("no.such.module:Engine", "cannot be imported"),
        ("tests.engines:Nothing", "cannot be imported"),
        (":Engine", "cannot be imported"),
        ("tests.engines:re", "cannot be called"),
    ],
)
def test_an_engine_that_cannot_be_had_is_named(name: str, message: str) -> None:
    """The error says what was asked for and what there is."""
    with pytest.raises(EngineUnavailable, match=message):
        create_engine(name)


@pytest.mark.parametrize(
    ("files", "visible", "found"),
    [
        ([], None, False),
        (["dev/nvidia0"], None, True),
        (["dev/nvidiactl"], None, False),
        (["proc/driver/nvidia/gpus/0000:01:00.0"], None, True),
        (["dev/nvidia0"], "", False),
        (["dev/nvidia0"], "-1", False),
        (["dev/nvidia0"], "0", True),
    ],
)
def test_a_cuda_device_is_seen_by_its_driver_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], visible: str | None, found: bool
) -> None:
    """A device node tells, unless CUDA_VISIBLE_DEVICES hides it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()

    assert has_cuda_device(tmp_path) is found
