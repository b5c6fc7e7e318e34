"""What vLLM's renderer is asked, and how often; the engine's tests show that it answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test` runs this file in .venv-vllm")

from worker.engines.base import Sound, TranscribeClip
from worker.engines.phi4 import Prompt, prompt_for
from worker.engines.vllm_prompts import Rendering

pytestmark = pytest.mark.filterwarnings("ignore")  # of vLLM's imports
CLIP = np.array([0, 16_384, -32_768] * 1_600, np.int16)


class Renderer:
    """Stands in for vLLM's: each letter is a token, and it keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.processor = SimpleNamespace(hears_16_bits=True)

    def get_mm_processor(self) -> Any:
        """The door to the checkpoint's processor."""
        return SimpleNamespace(info=SimpleNamespace(get_hf_processor=lambda: self.processor))

    def render_cmpl(self, prompts: list[Any]) -> list[dict[str, Any]]:
        """Answer one prompt."""
        (prompt,) = prompts
        self.asked.append(prompt)
        tokens = prompt.get("prompt_token_ids") or [ord(letter) for letter in prompt["prompt"]]
        return [{"prompt_token_ids": tokens}]


@pytest.fixture
def renderer() -> Renderer:
    return Renderer()


def rendering(renderer: Renderer) -> Rendering:
    """A rendering with that renderer in its AsyncLLM."""
    return Rendering(SimpleNamespace(renderer=renderer, model_config=SimpleNamespace(is_encoder_decoder=False)))


def transcribe(clip: Sound) -> Prompt:
    """The prompt of a clip."""
    return prompt_for(TranscribeClip(clip), max_model_len=4_096)


def test_clips_of_one_task_are_tokenized_once(renderer: Renderer) -> None:
    """Their words are the same; tokens and sound of each go on together."""
    prompts, clips = rendering(renderer), [CLIP, CLIP[::-1]]

    tokens = [prompts.render(transcribe(clip))["prompt_token_ids"] for clip in clips]

    text, *asked = renderer.asked
    assert set(text) == {"prompt"}
    assert tokens[0] == tokens[1] == [ord(letter) for letter in text["prompt"]]
    assert [one["multi_modal_data"]["audio"][0][0].tolist() for one in asked] == [clip.tolist() for clip in clips]


def test_long_words_are_not_kept(renderer: Renderer) -> None:
    """A conversation is asked once, and would only fill memory."""
    prompt = Prompt("word " * 1_000, clips=(CLIP,))

    prompts = rendering(renderer)
    prompts.render(prompt)
    prompts.render(prompt)

    assert ["prompt" in asked for asked in renderer.asked] == [True, False, True, False]


@pytest.mark.parametrize("is_ours", [True, False])
def test_the_checkpoints_own_processor_hears_floats(renderer: Renderer, is_ours: bool) -> None:
    """It knows nothing else; whether ours is there is asked of what was loaded, not of the settings."""
    heard = [0, 16_384, -32_768] if is_ours else [0.0, 0.5, -1.0]
    if not is_ours:
        renderer.processor = SimpleNamespace()

    rendering(renderer).render(transcribe(CLIP))

    ((samples, rate),) = renderer.asked[-1]["multi_modal_data"]["audio"]
    assert (samples[:3].tolist(), rate) == (heard, 16_000)


def test_words_alone_are_one_question(renderer: Renderer) -> None:
    """Nothing is kept of them."""
    rendering(renderer).render(Prompt("Hello"))

    assert [asked["prompt"] for asked in renderer.asked] == ["Hello"]
