"""PHI4_SERVE=vision or speech: the adapter is folded into the weights, once."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vllm_on_cpu import picture, settings
from worker.engines.base import Call, ReadPage

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test` runs this file in .venv-vllm")

import torch
from safetensors.torch import load_file, save_file

from worker.engines import fold as fold_module
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


def test_what_was_folded_before_the_files_changed_is_removed(model: Path) -> None:
    """It is as large as the model; what belongs to another adapter or another model stays."""
    other_model = Path(shutil.copytree(model, model.parent / "phi-4-with-vision"))
    stay = {fold(model, "speech")[0], fold(other_model)[0], other_model, model}
    before = [fold(model)[0]]
    for time in (1, 2):
        os.utime(model / "config.json", (time, time))
        before.append(fold(model)[0])

    assert len(set(before)) == 3
    assert set(model.parent.iterdir()) == stay | {before[-1]}


def test_what_was_not_finished_is_not_taken(model: Path) -> None:
    """A folder without the mark that is written last does not count, and does not stay."""
    kept = beside(model, "vision", model.parent)
    kept.mkdir()

    assert weights(fold(model)[0])
    assert [path.name for path in model.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["processing_phi4mm.py", "merges.txt", "config.json"])
def test_every_file_that_is_copied_counts(model: Path, name: str) -> None:
    """A model whose code, tokenizer or settings were changed is folded again, and has the change."""
    (model / "merges.txt").write_text("#version: 0.2")
    first, _ = fold(model)
    with (model / name).open("a") as file:
        file.write("\n")
    again, stages = fold(model)

    assert again != first
    assert stages == ["folding"]
    assert (again / name).read_bytes() == (model / name).read_bytes()


def test_a_newer_way_of_folding_folds_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an older release kept is not taken."""
    first, _ = fold(model)
    monkeypatch.setattr(fold_module, "_VERSION", fold_module._VERSION + 1)

    assert fold(model)[0] != first


@pytest.mark.parametrize("size", [None, 0, 4, 1_000_000], ids=["missing", "empty", "no header", "cut off"])
def test_a_damaged_folded_model_is_made_again(model: Path, size: int | None) -> None:
    """A power cut or a full disk may have left less than there was."""
    kept, _ = fold(model)
    whole = weights(kept)
    file = next(kept.glob("*.safetensors"))
    if size is None:
        file.unlink()
    else:
        os.truncate(file, size)

    again, stages = fold(model)

    assert (again, stages) == (kept, ["folding"])
    assert weights(kept).keys() == whole.keys()
    assert fold(model) == (kept, [])


KILLED = """
import os, signal, sys
from pathlib import Path
import safetensors.torch
from worker.engines.fold import folded
write = safetensors.torch.save_file
def write_and_die(tensors, target, **options):
    write(tensors, target, **options)
    os.kill(os.getpid(), signal.SIGKILL)
safetensors.torch.save_file = write_and_die
folded(Path(sys.argv[1]), "vision", Path(sys.argv[1]), lambda stage: None)
"""


def test_what_a_killed_worker_left_is_removed(model: Path) -> None:
    """Each try would leave as much as the model; other folders of such a name are nobody's to remove."""
    other = model.parent / ".phi-4-with-vision-notes"
    other.mkdir()
    done = subprocess.run([sys.executable, "-c", KILLED, model], cwd=Path(__file__).parent.parent, timeout=120)
    assert done.returncode == -signal.SIGKILL
    (left,) = (path for path in model.parent.glob(".*") if path != other)
    assert list(left.glob("*.safetensors"))

    fold(model)

    assert list(model.parent.glob(".*")) == [other]


def test_two_workers_may_fold_at_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second removes nothing that the first still writes, and the first takes what the second made."""
    write, faster = fold_module._write, []

    def while_another_does(checkpoint: Path, adapter: str, folder: Path) -> None:
        monkeypatch.setattr(fold_module, "_write", write)
        write(checkpoint, adapter, folder)
        faster.append(fold(model)[0])
        assert weights(folder)

    monkeypatch.setattr(fold_module, "_write", while_another_does)

    assert [fold(model)[0]] == faster
    assert list(model.parent.glob(".*")) == []


def test_a_full_disk_says_what_to_do(model: Path) -> None:
    """A limit on the size of files stands for it: safetensors tells both by an error of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(CannotFold, match="PHI4_SERVE=all needs none"):
            fold(model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert not beside(model, "vision", model.parent).exists()
    assert list(model.parent.glob(".*")) == []


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
