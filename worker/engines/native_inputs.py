"""Turns a prompt into what transformers' own class for Phi-4-multimodal is called with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch

from worker.engines.base import as_floats
from worker.engines.crops import image_tokens
from worker.engines.phi4 import SAMPLE_RATE, Prompt
from worker.engines.tiles import tiles

_PLACEHOLDER = re.compile(r"<\|(image|audio)_\d+\|>")


class Renderer:
    """Tokenizer and feature extractor of a model, with the ids that stand for its media."""

    def __init__(self, tokenizer: Any, extractor: Any, *, image_token: int, audio_token: int) -> None:
        self.tokenizer = tokenizer
        self._extractor = extractor
        self._media_tokens = {"image": image_token, "audio": audio_token}

    def render(self, prompt: Prompt) -> dict[str, Any]:
        """Give the arguments of `generate`, on the CPU: `input_ids` (1 × tokens), its mask, and tensors of the media.

        Media come in the order of their placeholders, which is that of `prompt.images` and `prompt.clips`.
        """
        media: dict[str, Any] = tiles(prompt.images) if prompt.images else {}
        if prompt.clips:
            clips = [as_floats(clip) for clip in prompt.clips]
            media |= self._extractor(clips, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        sizes = {
            "image": iter([image_tokens(*image.size) for image in prompt.images]),
            "audio": iter([int(size) for size in media.get("audio_embed_sizes", ())]),
        }
        tokens = torch.tensor([list(self._tokens(prompt.text, sizes))])
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), **media}

    def _tokens(self, text: str, sizes: dict[str, Iterator[int]]) -> Iterator[int]:
        """Tokens of the words, with as many of an image or a clip as it has, where its placeholder stands."""
        # Words and kinds of media in turn; by id, since the media's tokens are named differently in each checkpoint.
        for number, piece in enumerate(_PLACEHOLDER.split(text)):
            if number % 2:
                yield from [self._media_tokens[piece]] * next(sizes[piece])
            else:
                yield from self.tokenizer(piece, add_special_tokens=False)["input_ids"]
