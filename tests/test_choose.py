"""How the engine of a worker is chosen."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from phi4.errors import EngineUnavailable
from phi4.settings import load
from tests.engines import Scripted
from worker.engines.choose import create_engine, has_cuda_device, is_cpu


def test_auto_falls_back_to_the_cpu_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a CUDA device `auto` is the cpu engine, with a reason for the log."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    engine, reason = create_engine(load(engine="auto", cpu_threads=3))

    assert (engine.name, engine.model, engine.slots) == ("cpu", "rapidocr+moonshine-tiny-en", 2)
    assert engine.modalities == {"vision", "speech", "text"}
    assert reason == "cpu: no CUDA device found"


@pytest.mark.parametrize(
    ("engine", "cpu"), [("auto", True), ("cpu", True), ("vllm", False), ("tests.engines:Scripted", False)]
)
def test_the_cpu_engine_is_foretold(engine: str, cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts a worker knows beforehand whether it will have the cpu engine."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    assert is_cpu(load(engine=engine)) == cpu


def test_an_engine_of_ones_own_is_imported() -> None:
    """`package.module:Factory` is called without arguments."""
    engine, reason = create_engine(load(engine="tests.engines:Scripted"))

    assert isinstance(engine, Scripted)
    assert "tests.engines:Scripted" in reason


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_vllm_is_missed_with_what_to_install() -> None:
    """Asked for by name where the package is not there, it is not silently replaced."""
    with pytest.raises(EngineUnavailable, match=r"pip install \"phi4-service\[gpu\]\""):
        create_engine(load(engine="vllm"))


@pytest.mark.skipif(importlib.util.find_spec("peft") is not None, reason="transformers and peft are installed here")
def test_transformers_is_missed_with_what_to_install() -> None:
    """As vLLM is, naming the packages that are not there."""
    with pytest.raises(
        EngineUnavailable, match=r"not installed are .*peft.*pip install \"phi4-service\[transformers\]\""
    ):
        create_engine(load(engine="transformers"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", 'there are "auto", "cpu", "vllm", "transformers"'),
        ("", 'there are "auto", "cpu", "vllm", "transformers"'),
        ("no.such.module:Engine", "cannot be imported"),
        ("tests.engines:Nothing", "cannot be imported"),
        (":Engine", "cannot be imported"),
        ("tests.engines:re", "cannot be called"),
    ],
)
def test_an_engine_that_cannot_be_had_is_named(name: str, message: str) -> None:
    """The error says what was asked for and what there is."""
    with pytest.raises(EngineUnavailable, match=message):
        create_engine(load(engine=name))


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
