"""The checkpoint's own code: images as transformers' Phi4MultimodalForCausalLM takes them, without torchvision."""

from __future__ import annotations

from typing import Any

import torch
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import make_flat_list_of_images

from .crops_phi4mm import crop, stack


class Phi4MMImageProcessor(BaseImageProcessor):
    """Images as crops, in the tensors of Phi4MultimodalImageProcessor."""

    model_input_names = ("image_pixel_values", "image_sizes", "image_attention_mask")

    def __init__(self, dynamic_hd: int = 36, **settings: Any) -> None:
        super().__init__(**settings)
        self.dynamic_hd = dynamic_hd

    def __call__(self, images: Any, **_: Any) -> BatchFeature:
        """Tensors of all images, filled up to the largest number of crops, and the tokens of each."""
        cut = [crop(image, self.dynamic_hd) for image in make_flat_list_of_images(images)]
        return BatchFeature(
            {
                "image_pixel_values": torch.from_numpy(stack([one.pixels for one in cut], 0.0)),
                "image_attention_mask": torch.from_numpy(stack([one.mask for one in cut], 1.0)),
                "image_sizes": torch.tensor([[one.height, one.width] for one in cut]),
                "num_img_tokens": [one.tokens for one in cut],
            }
        )
