"""Starts Phi-4-multimodal in transformers: the GPU, the model's files, its weights, both adapters, and the tokenizer."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi4.errors import EngineUnavailable
from phi4.settings import Settings
from worker.engines import checkpoint, gpu, memory
from worker.engines.claim import claim
from worker.engines.native_inputs import Renderer
from worker.engines.serve_args import ADAPTERS, adapter_folder

_log = logging.getLogger(__name__)
#: What the adapters change. The checkpoint's own pattern fits the names in Microsoft's code alone.
_ADAPTED = r"model\.layers\.\d+\.(self_attn\.(qkv_proj|o_proj)|mlp\.(gate_up_proj|down_proj))"


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model, the PeftModel around it that switches adapters, and what turns prompts into its inputs."""

    model: Any
    adapters: Any
    renderer: Renderer


def load(settings: Settings, stage: Callable[[str], None]) -> Loaded:
    """Load everything onto one GPU, or the CPU where there is none. Raises `EngineUnavailable`."""
    cards = claim(gpu.cards(), 1, settings.data_dir / "gpus")
    folder = checkpoint.locate(settings.checkpoint, settings.checkpoint_revision, settings.hf_token, stage=stage)
    stage("loading")
    _check_memory(folder, cards[:1], settings.max_model_len)
    try:
        return _load(folder)
    except EngineUnavailable:
        raise
    except Exception as error:  # the libraries raise anything for files that do not fit each other
        _log.error("the model cannot be loaded", exc_info=error)
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
        raise EngineUnavailable(f"transformers cannot load the model in {folder}: {why}") from None


def _load(folder: Path) -> Loaded:
    import torch
    from transformers import AutoTokenizer, Phi4MultimodalFeatureExtractor, Phi4MultimodalForCausalLM

    config = checkpoint.read_config(folder)
    if config.get("model_type") != "phi4_multimodal":
        raise EngineUnavailable(
            f"The model in {folder} is not in the layout of transformers (its model_type is "
            f'"{config.get("model_type")}" and not "phi4_multimodal").'
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Phi4MultimodalForCausalLM.from_pretrained(folder, dtype="auto").to(device).eval()
    for module in model.modules():
        # transformers 5.19 says True, and lets the patches of a picture that fills its crops see only earlier ones.
        if type(module).__name__ == "Phi4MultimodalVisionAttention":
            module.is_causal = False
    renderer = Renderer(
        AutoTokenizer.from_pretrained(folder),
        Phi4MultimodalFeatureExtractor.from_pretrained(folder),
        image_token=model.config.vision_config.image_token_id,
        audio_token=model.config.audio_config.audio_token_id,
    )
    return Loaded(model, _with_adapters(model, folder), renderer)


def _with_adapters(model: Any, folder: Path) -> Any:
    """Put both adapters into the model; returns the PeftModel that switches them."""
    from peft import LoraConfig, PeftModel, set_peft_model_state_dict
    from safetensors.torch import load_file

    adapted = None
    for name in ADAPTERS:
        place = adapter_folder(folder, name)
        said = json.loads((place / "adapter_config.json").read_text())
        config = LoraConfig(r=said["r"], lora_alpha=said["lora_alpha"], target_modules=_ADAPTED, inference_mode=True)
        # Not transformers' own `load_adapter`: with the second adapter it takes every weight for missing in whose name
        # the adapter's occurs, such as "up_proj_for_speech", and makes it anew.
        if adapted is None:
            adapted = PeftModel(model, config, adapter_name=name, autocast_adapter_dtype=False)
        else:
            adapted.add_adapter(name, config, autocast_adapter_dtype=False)
        weights = load_file(place / "adapter_model.safetensors")
        report = set_peft_model_state_dict(adapted, weights, adapter_name=name)
        missing = [key for key in report.missing_keys if f".lora_A.{name}." in key or f".lora_B.{name}." in key]
        if report.unexpected_keys or missing:
            wrong = (*report.unexpected_keys, *missing)[0]
            raise EngineUnavailable(f"The adapter in {place} does not fit the model: {wrong}.")
    return adapted


def _check_memory(folder: Path, cards: Any, max_model_len: int) -> None:
    """Raise `memory.NotEnoughMemory` unless the card carries one prompt of full length."""
    wanted = memory.need(memory.Shape.of(checkpoint.read_config(folder)), max_model_len=max_model_len)
    for card in cards:
        if wanted.total > card.free:
            raise memory.NotEnoughMemory(
                f"PHI4_MAX_MODEL_LEN={max_model_len} needs {memory.gb(wanted.total)} GB ({wanted}), and {card} has "
                f"{memory.gb(card.free)} of {memory.gb(card.total)} GB free: set it lower, or choose another GPU with "
                "CUDA_VISIBLE_DEVICES (an empty one is the CPU)."
            )


def missing_packages() -> list[str]:
    """Name the packages of this engine that are not installed."""
    return [name for name in ("torch", "transformers", "peft", "safetensors") if importlib.util.find_spec(name) is None]
