"""What the service takes for granted of vLLM, and a reader that finds it in vLLM's source without importing it.

`python -m tests.vllm_source FOLDER >tests/vllm_0.26.0.json` records a version; FOLDER holds the package `vllm`, as its
wheel does when it is unpacked.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

#: By module, with "|" between its places in several versions: functions with their parameters,
#: classes with their fields, attributes, methods and members.
TAKEN: dict[str, dict[str, set[str]]] = {
    "vllm": {"": {"ModelRegistry", "SamplingParams", "__version__"}},
    "vllm.engine.arg_utils": {
        "AsyncEngineArgs": {"add_cli_args"},
        "EngineArgs": {
            # what is read of it, and what worker/engines/serve_args.py names as --arguments
            *("block_size", "enable_lora", "from_cli_args", "gpu_memory_utilization", "kv_cache_dtype"),
            *("limit_mm_per_prompt", "load_format", "max_cpu_loras", "max_lora_rank", "max_loras"),
            *("max_model_len", "max_num_batched_tokens", "max_num_seqs", "mm_processor_cache_gb", "model"),
            *("quantization", "renderer_num_workers", "scheduler_cls", "scheduling_policy", "served_model_name"),
            *("shutdown_timeout", "stream_interval", "tensor_parallel_size", "default_mm_loras"),
            *("structured_outputs_config", "trust_remote_code"),
        },
    },
    "vllm.entrypoints.launchers.cli_args|vllm.entrypoints.openai.cli_args": {"make_arg_parser": {"def", "parser"}},
    "vllm.entrypoints.openai.api_server": {"": {"__main__"}},
    "vllm.lora.request": {"LoRARequest": {"lora_int_id", "lora_name", "lora_path"}},
    "vllm.model_executor.layers.attention.mm_encoder_attention": {
        "MMEncoderAttention": {"_fa_version", "is_flash_attn_backend"}
    },
    "vllm.model_executor.models.phi4mm": {
        "": {"_AUDIO_PLACEHOLDER_TOKEN_ID"},
        "Phi4MMForCausalLM": {"embed_tokens_extend", "vision_encoder"},
        "Phi4MMForCausalLM._process_audio_input": {"audio_input", "audio_projection_mode"},
        "Phi4MMForCausalLM._process_image_input": {"image_input"},
        "Phi4MMForCausalLM.embed_multimodal": {"def"},
        "Phi4MMDummyInputsBuilder": set(),
        "Phi4MMMultiModalProcessor": {"_get_mm_fields_config"},
        "Phi4MMProcessingInfo": {"_compute_audio_embed_size", "_find_target_aspect_ratio", "get_dynamic_hd"},
    },
    "vllm.model_executor.models.idefics2_vision_model": {
        "Idefics2VisionTransformer": {"apply_encoder_attention_mask", "embeddings", "encoder"},
        "Idefics2VisionEmbeddings": {"patch_embedding", "position_embedding"},
        "Idefics2Encoder": {"layers"},
        "Idefics2EncoderLayer": {"layer_norm1", "layer_norm2", "mlp", "self_attn"},
        "Idefics2VisionAttention": {"attn", "head_dim", "out_proj", "qkv_proj", "scale"},
        "Idefics2VisionMLP": {"activation_fn", "config", "fc1", "fc2"},
    },
    "vllm.model_executor.models.phi4mm_audio": {
        "ConformerEncoderLayer": {
            *("conv", "feed_forward_in", "feed_forward_out", "layer_norm", "layer_norm_att", "self_attn"),
        },
        "ConformerEncoderLayer.forward": {"mask", "pos_k", "pos_v", "relative_attention_bias", "x"},
    },
    "vllm.model_executor.models.phi4mm_utils": {
        "ConvModule": {
            *("act", "batch_norm", "causal", "depthwise_seperable_out_channel", "dw_sep_conv_1d", "export"),
            *("ext_pw_conv_1d", "ext_pw_kernel_size", "ext_pw_out_channel", "glu", "input_dim", "layer_norm"),
        },
        "DepthWiseSeparableConv1d": {"dw_conv", "pw_conv"},
        "FeedForward": {"layer_norm", "net"},
        "GLU": {"act_fn", "dim"},
        "GLULinear": {"glu_act", "linear"},
        "GLUPointWiseConv": {"b1", "b2", "bias_in_glu", "ext_pw_conv_1d", "glu_act"},
        "MultiHeadedAttention": {
            *("d_k", "dropout_rate", "h", "h_k", "inv_sqrt_d_k", "linear_k", "linear_out", "linear_q", "linear_v"),
        },
        "NemoConvSubsampling": {"conv", "out", "subsampling_factor"},
    },
    "vllm.multimodal": {"": {"MULTIMODAL_REGISTRY"}},
    "vllm.multimodal.inputs": {
        "MultiModalFieldConfig": set(),
        "MultiModalFieldConfig.batched": {"keep_on_cpu", "modality"},
    },
    "vllm.outputs": {"CompletionOutput": {"finish_reason", "text", "token_ids"}, "RequestOutput": {"outputs"}},
    "vllm.platforms": {"": {"current_platform"}},
    "vllm.platforms.interface": {"Platform": {"is_cpu"}},
    "vllm.multimodal.processing.context": {"BaseProcessingInfo": {"get_hf_processor"}},
    "vllm.multimodal.processing.inputs": {"ProcessorInputs": {"get_mm_hashes", "mm_data_items"}},
    "vllm.multimodal.processing.processor": {
        "BaseMultiModalProcessor": {"info"},
        "BaseMultiModalProcessor.apply": {"inputs"},
    },
    "vllm.renderers.base": {"BaseRenderer": {"get_mm_processor"}, "BaseRenderer.render_cmpl": {"def", "prompts"}},
    "vllm.renderers.inputs.preprocess": {"parse_model_prompt": {"def", "model_config", "prompt"}},
    "vllm.sampling_params": {
        "RequestOutputKind": {"DELTA"},
        "SamplingParams": {
            *("ignore_eos", "max_tokens", "output_kind", "seed", "stop", "stop_token_ids", "structured_outputs"),
            *("temperature", "top_p"),
        },
        "StructuredOutputsParams": {"json"},
    },
    "vllm.usage.usage_lib": {"UsageContext": {"OPENAI_API_SERVER"}},
    "vllm.utils.argparse_utils": {"FlexibleArgumentParser": {"parse_args"}},
    "vllm.v1.attention.backends.fa_utils": {"": {"flash_attn_varlen_func"}},
    "vllm.v1.core.sched.async_scheduler": {"AsyncScheduler": set()},
    "vllm.v1.core.sched.scheduler": {
        "Scheduler": {"max_num_running_reqs", "prefill_capacity_bound", "running", "waiting"},
        "Scheduler.schedule": {"def", "throttle_prefills"},
    },
    "vllm.v1.request": {"Request": {"is_prefill_chunk", "num_prompt_tokens", "priority"}},
    "vllm.v1.engine.async_llm": {
        "AsyncLLM": {"errored", "model_config", "output_processor", "renderer"},
        "AsyncLLM.abort": {"async def", "request_id"},
        "AsyncLLM.add_lora": {"async def", "lora_request"},
        "AsyncLLM.from_engine_args": {"def", "engine_args", "usage_context"},
        "AsyncLLM.generate": {"async def", "lora_request", "priority", "prompt", "request_id", "sampling_params"},
        "AsyncLLM.shutdown": {"def"},
    },
    "vllm.v1.engine.exceptions": {"EngineDeadError": set()},
    "vllm.v1.engine.output_processor": {"OutputProcessor": {"get_num_unfinished_requests"}},
}
Names = dict[str, dict[str, list[str]]]


def found(folder: Path) -> Names:
    """What `folder` has of `TAKEN`: only the names that are there."""
    return {
        module: {
            name: sorted(wanted & names(folder, module, name))
            for name, wanted in things.items()
            if names(folder, module, name)
        }
        for module, things in TAKEN.items()
    }


@cache
def names(folder: Path, module: str, name: str) -> frozenset[str]:
    """Everything that a function takes, or that a class or ("") a module holds; nothing when there is no such thing."""
    files = (file for place in module.split("|") for file in _files(folder / place.replace(".", "/")) if file.exists())
    file = next(files, None)
    scope: ast.AST | None = ast.parse(file.read_text(encoding="utf-8")) if file else None
    for part in filter(None, name.split(".")):
        scope = next((n for n in _bodies(scope) if getattr(n, "name", "") == part), None)
    if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
        given = scope.args
        kind = "async def" if isinstance(scope, ast.AsyncFunctionDef) else "def"
        return frozenset({kind, *(a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs))})
    return frozenset({"class", *_held(scope)}) if scope is not None else frozenset()


def _files(path: Path) -> tuple[Path, Path]:
    return path / "__init__.py", path.with_suffix(".py")


def _bodies(scope: ast.AST | None) -> list[ast.stmt]:
    """The statements of a scope, in `if` and `try` too."""
    statements: list[ast.stmt] = list(getattr(scope, "body", []))
    for one in list(statements):
        if isinstance(one, ast.If | ast.Try):
            statements += [*_bodies(one), *one.orelse]
    return statements


def _held(scope: ast.AST) -> Iterator[str]:
    for node in ast.walk(scope):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.alias(name=name, asname=other):
                yield other or name
            case ast.Constant(value=str(name)):  # names that a module loads late, and "__main__"
                yield name


if __name__ == "__main__":
    json.dump(found(Path(sys.argv[1])), sys.stdout, indent=1)
    print()
