"""The tiny checkpoint of transformers' own Phi-4-multimodal class: model and processor take every kind of prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed here; `make test` runs this file in .venv-vllm"
)

#: What torch and transformers warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")

WORDS = "What is this?"
#: Each letter is a token, and so are <|user|>, <|end|> and <|assistant|>.
WORDS_TOKENS = len(WORDS) + 3


class Native:
    """The model and its processor."""

    def __init__(self, folder: Path) -> None:
        self.processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        self.model = transformers.Phi4MultimodalForCausalLM.from_pretrained(folder, dtype="float32")

    def answer(self, **media: Any) -> tuple[int, list[int]]:
        """How many tokens the prompt has, and the ids of up to eight tokens said."""
        places = "<|image|>" * len(media.get("images", ())) + "<|audio|>" * len(media.get("audio", ()))
        inputs = self.processor(
            text=f"<|user|>{places}{WORDS}<|end|><|assistant|>",
            audio_kwargs={"sampling_rate": 16_000},
            return_tensors="pt",
            **media,
        )
        said = self.model.generate(**inputs, max_new_tokens=8, do_sample=False)[0].tolist()
        asked = inputs["input_ids"].shape[1]
        return asked, said[asked:]


@pytest.fixture(scope="module")
def native(tiny_native_phi4: Path) -> Native:
    """The model, loaded once."""
    return Native(tiny_native_phi4)


def picture(seed: int, width: int = 448, height: int = 448) -> Image.Image:
    """Noise; another one for every seed."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def sound(seed: int) -> NDArray[np.float32]:
    """Two seconds of a tone; another one for every seed."""
    return (0.3 * np.sin(np.arange(32_000) * (0.1 + seed / 50))).astype(np.float32)


@pytest.mark.parametrize(
    ("media", "tokens"),
    [
        ({}, 0),
        ({"images": [picture(1)]}, 545),
        ({"images": [picture(1), picture(2), picture(3, 900, 448)]}, 545 + 545 + 817),
        ({"audio": [sound(1)]}, 25),
        ({"images": [picture(1)], "audio": [sound(1)]}, 545 + 25),
    ],
    ids=["text", "image", "three images", "audio", "image and audio"],
)
def test_every_kind_of_prompt_is_answered(native: Native, media: dict[str, Any], tokens: int) -> None:
    """Media become as many tokens as in the published model, and something is said."""
    asked, said = native.answer(**media)

    assert asked == WORDS_TOKENS + tokens
    assert said


def test_another_picture_or_sound_changes_what_is_said(native: Native) -> None:
    """Media reach the model; the same ones give the same answer."""
    pictures = [native.answer(images=[picture(seed)])[1] for seed in (1, 2, 1)]
    sounds = [native.answer(audio=[sound(seed)])[1] for seed in (1, 2, 1)]

    assert [pictures[0] == pictures[1], pictures[0] == pictures[2]] == [False, True]
    assert [sounds[0] == sounds[1], sounds[0] == sounds[2]] == [False, True]
