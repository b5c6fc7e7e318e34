"""How the transformers engine loads a model: both layouts, what it mends in the model's class, and what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phi4.errors import EngineUnavailable
from phi4.settings import load
from tests.tiny_phi4.sizes import TINY
from tests.vllm_on_cpu import picture, sound
from worker.engines import native_layout
from worker.engines.base import Answer, Call, Chat, ReadPage, Task, TranscribeClip, Turn

pytest.importorskip("transformers", reason="transformers is not installed here; `make test` runs this in .venv-vllm")
pytest.importorskip("peft", reason="peft is not installed here; `make test` runs this file in .venv-vllm")

import torch
from safetensors.torch import load_file, save_file

from tests.tiny_phi4.config import vision_config
from worker.engines.transformers import TransformersEngine

#: What torch and transformers warn of is theirs.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]

TASKS: list[Task] = [
    ReadPage(picture(1, 900, 448), max_tokens=12),
    TranscribeClip(sound(1), max_tokens=12),
    Chat((Turn("user", ("Say something, please.",)),), max_tokens=12),
]


def started(folder: Path) -> TransformersEngine:
    """An engine on the model in `folder`."""
    engine = TransformersEngine(load(engine="transformers", checkpoint=str(folder), max_model_len=8_192, cpu_threads=1))
    engine.start(lambda _: None)
    return engine


def ask(engine: Any, task: Task) -> Answer:
    """An engine's answer to one task."""
    answer: Answer = engine.run(task, Call(request_id="test"))
    return answer


@pytest.fixture
def copied(tiny_native_phi4: Path, tmp_path: Path) -> Path:
    """A model that a test may spoil."""
    return shutil.copytree(tiny_native_phi4, tmp_path / "model")


@pytest.fixture
def tiny_tower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the image tower tiny where config.json cannot say so."""
    monkeypatch.setattr(native_layout, "VISION", vision_config(TINY.vision))


@pytest.mark.usefixtures("tiny_tower")
def test_both_layouts_give_the_same_answers(tiny_native_phi4: Path, tiny_phi4: Path) -> None:
    """Microsoft's own files, which vLLM reads too, and those written for transformers hold the same model."""
    native, published = started(tiny_native_phi4), started(tiny_phi4)

    assert [ask(published, task) for task in TASKS] == [ask(native, task) for task in TASKS]


def test_an_answer_may_grow_beyond_the_short_rotary_embedding(tiny_native_phi4: Path) -> None:
    """Past 4096 tokens each token is the one that the whole text before it calls for."""
    loaded = started(tiny_native_phi4)._loaded
    assert loaded is not None
    model = loaded.model.float()
    prompt = torch.tensor([[97 + n * 7 % 26 for n in range(4_090)]])

    with torch.inference_mode(), loaded.adapters.disable_adapter():
        text = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=16, do_sample=False)
        called_for = model(text, use_cache=False).logits[0, 4_089:-1].argmax(-1)

    assert text.shape[1] > 4_097
    assert text[0, 4_090:].tolist() == called_for.tolist()


def test_patches_of_a_picture_see_each_other(tiny_native_phi4: Path) -> None:
    """Another last patch changes what the first one becomes, also in a picture that fills its crop."""
    loaded = started(tiny_native_phi4)._loaded
    assert loaded is not None
    tower = loaded.model.model.embed_tokens_extend.image_embed.img_processor
    pixels = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 3, 448, 448))).to(loaded.model.dtype)
    other = pixels.clone()
    other[..., -14:, -14:] = 3.0

    with torch.inference_mode():
        first = [tower(p, output_hidden_states=True).hidden_states[-2][0, 0] for p in (pixels, other)]

    assert not torch.equal(*first)


def without_an_adapter(folder: Path) -> None:
    """Take one adapter away."""
    (folder / "speech-lora" / "adapter_model.safetensors").unlink()


def with_another_adapter(folder: Path) -> None:
    """Leave one weight out of an adapter."""
    file = folder / "vision-lora" / "adapter_model.safetensors"
    weights = load_file(file)
    weights.pop(next(iter(weights)))
    save_file(weights, file)


def without_a_weight(folder: Path) -> None:
    """Leave one weight out of the model."""
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def of_another_kind(folder: Path) -> None:
    """Let config.json tell of another model."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))


def with_a_broken_tokenizer(folder: Path) -> None:
    """Let the tokenizer be no tokenizer."""
    (folder / "tokenizer.json").write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_an_adapter, r"speech-lora/adapter_model\.safetensors is missing"),
        (with_another_adapter, r"vision-lora does not fit the model: .*lora_A"),
        (without_a_weight, r"lacks 1 weights, such as model\.norm\.weight"),
        (of_another_kind, r"is no Phi-4-multimodal"),
        (with_a_broken_tokenizer, r"transformers cannot load the model in .*model: "),
    ],
)
def test_a_model_that_is_not_whole_is_not_served(copied: Path, spoil: Callable[[Path], None], message: str) -> None:
    """The start ends with what is wrong; transformers itself would put random numbers in the place of weights."""
    spoil(copied)

    with pytest.raises(EngineUnavailable, match=message):
        started(copied)
