"""Starts Phi-4-multimodal in transformers: the GPU, the model's files and weights, both adapters, the tokenizer."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi4.errors import EngineUnavailable
from phi4.settings import Settings
from worker.engines import checkpoint, gpu, memory, native_layout
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
        return _load(folder, settings.max_model_len, settings.cpu_threads)
    except EngineUnavailable:
        raise
    except Exception as error:  # the libraries raise anything for files that do not fit each other
        _log.error("the model cannot be loaded", exc_info=error)
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
        raise EngineUnavailable(f"transformers cannot load the model in {folder}: {why}") from None


def _load(folder: Path, max_model_len: int, threads: int) -> Loaded:
    import torch
    from transformers import Phi4MultimodalFeatureExtractor, PreTrainedTokenizerFast
    from transformers.utils import logging as transformers_logging

    # It warns of weights that are not used; those that are missing are looked for below.
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if threads:
        torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = _model(folder).to(device).eval()
    for module in model.modules():
        # transformers 5.19 says True, and lets the patches of a picture that fills its crops see only earlier ones.
        if type(module).__name__ == "Phi4MultimodalVisionAttention":
            module.is_causal = False
    _fix_rotary(model, max_model_len)
    renderer = Renderer(
        PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True),
        Phi4MultimodalFeatureExtractor.from_pretrained(folder, local_files_only=True),
        image_token=model.config.vision_config.image_token_id,
        audio_token=model.config.audio_config.audio_token_id,
    )
    return Loaded(model, _with_adapters(model, folder), renderer)


def _model(folder: Path) -> Any:
    """Load the weights from either layout; code that lies beside them is not run."""
    from transformers import Phi4MultimodalConfig, Phi4MultimodalForCausalLM

    told = checkpoint.read_config(folder)
    layout: dict[str, Any] = {"dtype": "auto"}
    if native_layout.is_published(told):
        config = Phi4MultimodalConfig(**native_layout.config_of(told))
        layout = {"dtype": told.get("torch_dtype", "auto"), "config": config, "key_mapping": native_layout.NAMES}
    elif told.get("model_type") != "phi4_multimodal":
        raise EngineUnavailable(f"The model in {folder} is no Phi-4-multimodal: its config.json says otherwise.")
    model, report = Phi4MultimodalForCausalLM.from_pretrained(
        folder, output_loading_info=True, local_files_only=True, **layout
    )
    # The class would go on with random numbers in their place.
    if missing := sorted(key for key in report["missing_keys"] if native_layout.UNUSED not in key):
        raise EngineUnavailable(f"The model in {folder} lacks {len(missing)} weights, such as {missing[0]}.")
    return model


def _fix_rotary(model: Any, max_model_len: int) -> None:
    """Choose the rotary embedding's factors by the longest prompt and answer there may be, once, as vLLM does.

    transformers 5.19 changes them within an answer that grows beyond 4096 tokens, and then forgets what came before.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rotary, config = model.model.rotary_emb, model.config
    if rotary.rope_type == "longrope":
        rotary.inv_freq, _ = ROPE_INIT_FUNCTIONS["longrope"](config, model.device, seq_len=max_model_len)
        rotary.rope_type = "default"
        config.original_max_position_embeddings = config.max_position_embeddings


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
