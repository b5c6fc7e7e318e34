"""PHI4_SERVE=vision or speech: the adapter is folded into the weights, once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vllm_on_cpu import picture, settings
from worker.engines.base import Call, ReadPage

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test` runs this file in .venv-vllm")

import torch
from safetensors.torch import load_file, save_file

from worker.engines.fold import CannotFold, beside, folded
from worker.engines.vllm import VllmEngine  # needs vLLM

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]

LAYER = "model.layers.0.self_attn.qkv_proj"


@pytest.fixture
def model(tiny_phi4: Path, tmp_path: Path) -> Path:
    """A model's folder that a test may change."""
    return Path(shutil.copytree(tiny_phi4, tmp_path / "phi-4"))


def fold(model: Path, adapter: str = "vision") -> tuple[Path, list[str]]:
    """Fold; returns the folder, and the stages that were told."""
    stages: list[str] = []
    return folded(model, adapter, model.parent / "spare", stages.append), stages


def weights(folder: Path) -> dict[str, Any]:
    """All weights by name."""
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def test_the_change_is_added_to_the_weights(model: Path) -> None:
    """W + α/r · B · A for the layers that the adapter changes; all others are as they were, and no adapter is left."""
    kept, _ = fold(model)

    before, after = weights(model), weights(kept)
    adapter = load_file(model / "vision-lora" / "adapter_model.safetensors")
    down, up = (adapter[f"base_model.model.{LAYER}.lora_{half}.weight"].float() for half in "AB")
    name = next(name for name in before if name.startswith(LAYER) and name.endswith("weight"))
    expected = (before[name].float() + 2 * up @ down).to(before[name].dtype)
    assert torch.equal(after[name], expected)
    assert not torch.equal(after[name], before[name])
    assert torch.equal(after["model.norm.weight"], before["model.norm.weight"])
    assert after.keys() == {name for name in before if ".lora_" not in name}


def test_it_is_done_once_and_again_when_a_file_changed(model: Path) -> None:
    """The folder's name says what it is, and changes with the model and the adapter."""
    first, stages = fold(model)
    again, none = fold(model)
    adapter = model / "vision-lora" / "adapter_model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(adapter).items()}, adapter)
    changed, _ = fold(model)

    assert (first.parent, first.name.startswith("phi-4-with-vision-")) == (model.parent, True)
    assert (again, stages, none) == (first, ["folding"], [])
    assert changed != first
    assert fold(model, "speech")[0].name.startswith("phi-4-with-speech-")


def test_what_was_not_finished_is_not_taken(model: Path) -> None:
    """A folder without the mark that is written last does not count, and does not stay."""
    kept = beside(model, "vision", model.parent)
    kept.mkdir()

    assert weights(fold(model)[0])
    assert [path.name for path in model.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("left_out", "message"),
    [(f"base_model.model.{LAYER}.lora_B.weight", "both halves"), (None, "no weights")],
    ids=["half a change", "a layer that the model has not"],
)
def test_an_adapter_that_does_not_fit_says_so(model: Path, left_out: str | None, message: str) -> None:
    """Nothing half-folded is kept."""
    file = model / "vision-lora" / "adapter_model.safetensors"
    changes = load_file(file)
    if left_out:
        del changes[left_out]
    else:
        changes |= {
            name.replace("layers.0", "layers.77"): t.clone() for name, t in changes.items() if "layers.0" in name
        }
    save_file(changes, file)

    with pytest.raises(CannotFold, match=message):
        fold(model)

    assert not beside(model, "vision", model.parent).exists()


# -- in the engine


@pytest.fixture(scope="module")
def one_modality(tiny_phi4: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    """An engine that serves pictures alone, from folded weights in single precision: rounded ones say other words."""
    own = tmp_path_factory.mktemp("fold") / "phi-4"
    shutil.copytree(tiny_phi4, own)
    for file in own.glob("*.safetensors"):
        save_file({name: tensor.float() for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    engine = VllmEngine(settings(own).model_copy(update={"serve": "vision"}))
    engine.start(lambda _: None)
    yield engine
    engine.stop()


def test_it_answers_as_with_the_adapter_at_run_time(vllm_engine: VllmEngine, one_modality: VllmEngine) -> None:
    """The same words, greedily, in single precision; it offers no other modality."""
    pages = [ReadPage(picture(seed, 600, 500), max_tokens=24) for seed in (1, 2, 3)]

    def answers(engine: VllmEngine) -> list[str]:
        return [engine.run(task, Call(request_id="fold")).text for task in pages]

    assert one_modality.modalities == {"vision"}
    assert answers(one_modality) == answers(vllm_engine)
