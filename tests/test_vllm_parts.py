"""Our picture and sound parts take their place in the checkpoint's processor only where they give the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test` runs this file in .venv-vllm")

import torch
from PIL import Image
from transformers import AutoProcessor

from worker.engines.base import as_floats
from worker.engines.crops import grid
from worker.engines.fast_crops import FastCrops
from worker.engines.fast_parts import quicken, same_pictures
from worker.engines.fast_sounds import FastSounds, features, log_mel

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]


@pytest.fixture
def processor(tiny_phi4: Path) -> Any:
    """The checkpoint's own, as `trust_remote_code` loads it."""
    return AutoProcessor.from_pretrained(tiny_phi4, trust_remote_code=True)


def _quicken(processor: Any) -> Any:
    return quicken(processor, find_grid=grid, tokens_of=lambda frames: -(-frames // 8), audio_token=200_011)


def _fast_sounds(processor: Any) -> FastSounds:
    return FastSounds(processor.audio_processor, lambda frames: -(-frames // 8))


def test_parts_that_give_the_same_take_their_place(processor: Any) -> None:
    """Bytes go to the model instead of numbers; what else vLLM asks of a part is the checkpoint's."""
    _quicken(processor)

    assert isinstance(processor.image_processor, FastCrops)
    assert isinstance(processor.audio_processor, FastSounds)
    assert processor.image_processor.dynamic_hd == 36
    assert processor.audio_processor.sampling_rate == 16_000
    page = processor(text="<|image_1|>", images=[Image.new("RGB", (500, 300))])
    assert page["input_image_embeds"].dtype == torch.uint8
    assert page["input_image_embeds"].shape == (1, 2, 3, 448, 448)
    assert len(page["input_ids"][0]) == page["num_img_tokens"][0]


def _brighter(theirs: Any) -> Callable[..., dict[str, Any]]:
    return lambda images: (made := theirs(images)) | {"input_image_embeds": made["input_image_embeds"] + 0.1}


def _other_tokens(theirs: Any) -> Callable[..., dict[str, Any]]:
    return lambda images: theirs(images) | {"num_img_tokens": [1]}


def _other_names(theirs: Any) -> Callable[..., dict[str, Any]]:
    return lambda images: {"pixels": theirs(images)["input_image_embeds"]}


@pytest.mark.parametrize("strange", [_brighter, _other_tokens, _other_names])
def test_a_part_that_differs_leaves_the_checkpoints_own(
    processor: Any, caplog: pytest.LogCaptureFixture, strange: Callable[[Any], Any]
) -> None:
    """The log says which, and the other part is replaced all the same."""
    own = strange(processor.image_processor)
    processor.image_processor = own

    _quicken(processor)

    assert processor.image_processor is own
    assert isinstance(processor.audio_processor, FastSounds)
    assert "slower image_processor is used" in caplog.text


def test_trials_may_ask_for_the_processor_that_they_try(processor: Any, caplog: pytest.LogCaptureFixture) -> None:
    """As vLLM does to find a grid, where few crops are allowed."""
    asked = []

    def find_grid(width: int, height: int) -> tuple[int, int]:
        asked.append(quicken(processor, find_grid=find_grid, tokens_of=lambda frames: frames, audio_token=0))
        return grid(width, height)

    quickened = quicken(processor, find_grid=find_grid, tokens_of=lambda frames: -(-frames // 8), audio_token=0)

    assert asked == [quickened]
    assert isinstance(processor.image_processor, FastCrops)
    assert "slower" not in caplog.text


@pytest.mark.parametrize("size", [(448, 448), (500, 300), (1240, 1754), (37, 900), (1344, 449), (12, 20)])
def test_pictures_of_any_shape_are_cut_alike(processor: Any, size: tuple[int, int]) -> None:
    """Sizes, masks and token counts are the checkpoint's; bytes become its numbers."""
    theirs = copy.copy(processor.image_processor)
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8))

    assert same_pictures(theirs, FastCrops(theirs, grid), noise)


@pytest.mark.parametrize("samples", [400, 559, 560, 16_001, 479_999])
def test_sounds_of_any_length_have_the_same_features(processor: Any, samples: int) -> None:
    """Also of one frame; in bf16, which the model computes in, they are equal but for roundings.

    Of sound of 16 bits, as preparation writes it; of finer sound, what lies below is lost.
    """
    noise = np.random.default_rng(2).integers(-20_000, 20_000, samples).astype(np.float32) / 32_768
    theirs = processor.audio_processor([(noise, 16_000)])

    ours = _fast_sounds(processor)([(noise, 16_000)])

    (rows,) = ours["input_audio_embeds"]
    torch.testing.assert_close(features(rows), theirs["input_audio_embeds"][0], rtol=0, atol=0.02)
    assert ours["audio_embed_sizes"].tolist() == theirs["audio_embed_sizes"].tolist()


def test_sounds_of_one_prompt_may_differ_in_length(processor: Any) -> None:
    """vLLM takes as many rows of each as it has frames; what stands there is the sound, bit by bit if it has 16."""
    rng = np.random.default_rng(3)
    sounds = [rng.integers(-32_768, 32_768, samples).astype(np.int16) for samples in (400, 5_000, 16_077)]
    audios = [(sound.astype(np.float32) / 32_768, 16_000) for sound in sounds]

    laid_out = _fast_sounds(processor)(audios)["input_audio_embeds"]

    for sound, rows in zip(sounds, laid_out, strict=True):
        frames = (len(sound) - 400) // 160 + 1
        heard = log_mel(torch.from_numpy(sound))
        assert heard.shape == (frames, 80)
        assert torch.equal(features(rows[:frames]), heard)


def test_sound_in_16_bits_is_laid_out_like_the_same_in_floats(processor: Any) -> None:
    """Preparation keeps it in 16 bits; other callers have floats."""
    sound = np.random.default_rng(4).integers(-32_768, 32_768, 7_777).astype(np.int16)
    fast = _fast_sounds(processor)

    (kept,), (converted,) = fast.laid_out([(sound, 16_000)]), fast.laid_out([(as_floats(sound), 16_000)])

    assert torch.equal(kept, converted)


def test_sounds_alone_need_no_call_of_the_checkpoint(processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is as long as it is, and stands in the text as often as the checkpoint's own call puts it there."""
    sounds = [(np.random.default_rng(5).integers(-9, 9, n).astype(np.int16), 16_000) for n in (400, 5_000, 16_077)]
    text = "<|audio_1|><|audio_2|><|audio_3|>"
    expected = processor(text=text, audios=[(as_floats(sound), rate) for sound, rate in sounds])

    quickened = _quicken(processor)
    monkeypatch.setattr(type(processor), "__call__", Mock(side_effect=AssertionError("called")))
    got = quickened(text=text, audios=sounds)

    assert got["input_ids"].tolist() == expected["input_ids"].tolist()
    assert (len(got["input_audio_embeds"]), list(got["image_sizes"])) == (3, [])
    for number, theirs in enumerate(expected["input_audio_embeds"]):
        frames = (len(sounds[number][0]) - 400) // 160 + 1
        torch.testing.assert_close(
            features(got["input_audio_embeds"][number, :frames]), theirs[:frames], rtol=0, atol=0.02
        )


def test_other_prompts_are_left_to_the_checkpoint(processor: Any) -> None:
    """Words between sounds, and pictures beside them."""
    quickened, sound = _quicken(processor), (np.zeros(1_000, np.int16), 16_000)

    words = quickened(text="Hear <|audio_1|>", audios=[sound])
    both = quickened(text="<|image_1|><|audio_1|>", images=[Image.new("RGB", (448, 448))], audios=[sound])

    assert words["input_audio_embeds"].shape == both["input_audio_embeds"].shape
    assert words["input_ids"].shape[1] > 1
    assert len(both["image_sizes"]) == 1


def test_a_checkpoint_that_hears_otherwise_gets_floats(processor: Any) -> None:
    """Its own sound part stays in place then, and knows no other numbers."""
    own, heard = processor.audio_processor, []
    processor.audio_processor = lambda audios: heard.extend(audios) or own(audios) | {"audio_embed_sizes": [0]}

    _quicken(processor)(text="<|audio_1|>", audios=[(np.full(1_000, 16_384, np.int16), 16_000)])

    assert (heard[-1][0].dtype, heard[-1][0][0]) == (np.float32, 0.5)


@pytest.mark.parametrize(
    ("samples", "rate", "complaint"), [(399, 16_000, "400 samples at least"), (8_000, 8_000, "16000 samples a second")]
)
def test_sounds_that_cannot_be_heard_are_refused(processor: Any, samples: int, rate: int, complaint: str) -> None:
    """Shorter than a window, or of another rate: vLLM resamples before."""
    with pytest.raises(ValueError, match=complaint):
        _fast_sounds(processor)([(np.zeros(samples, np.float32), rate)])
