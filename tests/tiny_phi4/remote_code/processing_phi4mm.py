"""The checkpoint's own code: makes a prompt with images and sounds the tensors that vLLM's Phi4MM takes.

transformers' own image processor would need torchvision; its feature extractor for sound is used as it is.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, Phi4MultimodalFeatureExtractor, PreTrainedTokenizerFast
from transformers.processing_utils import ImagesKwargs, ProcessingKwargs, ProcessorMixin

from .crops_phi4mm import closest_ratio, crop, stack

IMAGE_TOKEN = 200_010
AUDIO_TOKEN = 200_011


class Phi4MMImageProcessor:
    """Images as crops; vLLM reads `dynamic_hd`, `valid_kwargs` and `find_closest_aspect_ratio`."""

    valid_kwargs = ImagesKwargs

    def __init__(self, dynamic_hd: int) -> None:
        self.dynamic_hd = dynamic_hd

    def find_closest_aspect_ratio(
        self, aspect_ratio: float, target_ratios: list[tuple[int, int]], width: int, height: int, image_size: int
    ) -> tuple[int, int]:
        """The grid of crops for an image."""
        return closest_ratio(aspect_ratio, target_ratios, width * height, image_size)

    def __call__(self, images: list[Any]) -> dict[str, Any]:
        """Tensors of all images, filled up to the largest number of crops, and the tokens of each."""
        cut = [crop(image, self.dynamic_hd) for image in images]
        return {
            "input_image_embeds": torch.from_numpy(stack([one.pixels for one in cut], 0.0)),
            "image_attention_mask": torch.from_numpy(stack([one.mask for one in cut], 1.0)),
            "image_sizes": torch.tensor([[one.height, one.width] for one in cut]),
            "num_img_tokens": [one.tokens for one in cut],
        }


class Phi4MMAudioFeatureExtractor:
    """Sounds as features; called as Microsoft's is, with pairs of samples and their rate."""

    def __init__(self, compression_rate: int) -> None:
        self._features = Phi4MultimodalFeatureExtractor(audio_compression_rate=compression_rate)
        self.sampling_rate = self._features.sampling_rate

    def __call__(self, audios: list[tuple[Any, int]], **_: Any) -> dict[str, Any]:
        """Features of all sounds, filled up, and the tokens of each."""
        if strange := {theirs for _, theirs in audios} - {self.sampling_rate}:
            raise ValueError(f"sound must have {self.sampling_rate} samples a second, not {strange}")
        samples = [np.asarray(sound, np.float32) for sound, _ in audios]
        features = self._features(samples, sampling_rate=self.sampling_rate, return_tensors="pt")
        return {
            "input_audio_embeds": features["audio_input_features"],
            "audio_embed_sizes": features["audio_embed_sizes"],
        }


class Phi4MMProcessor(ProcessorMixin):
    """Text with <|image_1|>, <|audio_1|> and so on, and what they stand for, as one batch."""

    valid_processor_kwargs = ProcessingKwargs

    def __init__(self, image_processor: Any, audio_processor: Any, tokenizer: Any) -> None:
        # Without super().__init__, which checks the parts against classes that import torchvision.
        self.image_processor = image_processor
        self.audio_processor = audio_processor
        self.tokenizer = tokenizer
        self.chat_template = tokenizer.chat_template

    @classmethod
    def from_pretrained(cls, folder: str, *args: Any, tokenizer: Any = None, **settings: Any) -> Phi4MMProcessor:
        """Read the checkpoint's processor; `dynamic_hd` may be set by the caller."""
        config = json.loads((Path(folder) / "preprocessor_config.json").read_text()) | settings
        return cls(
            Phi4MMImageProcessor(config["dynamic_hd"]),
            Phi4MMAudioFeatureExtractor(config["audio_compression_rate"]),
            # AutoTokenizer would ask once more whether this code may be trusted.
            tokenizer or PreTrainedTokenizerFast.from_pretrained(folder),
        )

    def __call__(self, text: str | None = None, images: Any = None, audios: Any = None, **_: Any) -> BatchFeature:
        """One batch; modalities that are missing come back as empty tensors, which vLLM asks for."""
        data: dict[str, Any] = {
            "input_image_embeds": torch.zeros(0),
            "image_sizes": torch.zeros((0, 2), dtype=torch.long),
            "image_attention_mask": torch.zeros(0),
            "num_img_tokens": [],
            "input_audio_embeds": torch.zeros(0),
            "audio_embed_sizes": torch.zeros(0, dtype=torch.long),
        }
        if images:
            data |= self.image_processor(images)
        if audios:
            data |= self.audio_processor(audios)
        if text is not None:
            data["input_ids"] = torch.tensor([self._ids(text, data)])
        return BatchFeature(data)

    def _ids(self, text: str, data: dict[str, Any]) -> list[int]:
        """Token ids, with as many for each image and sound as the model makes of it."""
        ids: list[int] = []
        for piece in re.split(r"(<\|(?:image|audio)_\d+\|>)", text):
            if found := re.fullmatch(r"<\|(image|audio)_(\d+)\|>", piece):
                token, counts = {
                    "image": (IMAGE_TOKEN, data["num_img_tokens"]),
                    "audio": (AUDIO_TOKEN, data["audio_embed_sizes"]),
                }[found[1]]
                ids += [token] * int(counts[int(found[2]) - 1])
            else:
                ids += self.tokenizer.encode(piece, add_special_tokens=False)
        return ids

    def batch_decode(self, *args: Any, **settings: Any) -> Any:
        """The tokenizer's."""
        return self.tokenizer.batch_decode(*args, **settings)

    def decode(self, *args: Any, **settings: Any) -> Any:
        """The tokenizer's."""
        return self.tokenizer.decode(*args, **settings)
