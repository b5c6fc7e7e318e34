"""What the vLLM engine takes for granted of the installed vLLM; tests/test_vllm_versions.py reads 0.26.0."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test` runs this file in .venv-vllm")

pytestmark = pytest.mark.filterwarnings("ignore")


def _parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def test_the_engine_is_made_driven_and_ended_by_these_names() -> None:
    """AsyncLLM: the calls of worker/engines/vllm.py and vllm_start.py, and the words they pass."""
    from vllm.v1.engine.async_llm import AsyncLLM

    assert _parameters(AsyncLLM.from_engine_args) >= {"engine_args", "usage_context"}
    assert _parameters(AsyncLLM.generate) >= {
        "prompt",
        "sampling_params",
        "request_id",
        "lora_request",
        "priority",
    }
    assert inspect.isasyncgenfunction(AsyncLLM.generate)
    assert inspect.iscoroutinefunction(AsyncLLM.add_lora)
    assert inspect.iscoroutinefunction(AsyncLLM.abort)
    assert not inspect.iscoroutinefunction(AsyncLLM.shutdown)
    assert isinstance(inspect.getattr_static(AsyncLLM, "errored"), property)


def test_a_dead_engine_is_known_by_its_errors_name() -> None:
    """Its ancestors differ between versions, so the name is what counts."""
    from vllm.v1.engine import exceptions

    assert exceptions.EngineDeadError.__name__ == "EngineDeadError"


def test_prompts_are_prepared_by_the_renderer_in_any_thread() -> None:
    """`render_cmpl` is no coroutine: it runs in the thread that brings the task."""
    from vllm.renderers.base import BaseRenderer
    from vllm.renderers.inputs.preprocess import parse_model_prompt

    assert _parameters(BaseRenderer.render_cmpl) >= {"prompts"}
    assert not inspect.iscoroutinefunction(BaseRenderer.render_cmpl)
    assert list(inspect.signature(parse_model_prompt).parameters) == ["model_config", "prompt"]


def test_answers_are_sampled_and_held_by_these_settings() -> None:
    """SamplingParams, structured outputs, LoRA requests."""
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    held = StructuredOutputsParams(json={"type": "boolean"})
    sampling = SamplingParams(
        temperature=0.3,
        top_p=0.9,
        seed=1,
        stop=["x"],
        stop_token_ids=[200020, 199999],
        max_tokens=5,
        output_kind=RequestOutputKind.DELTA,
        structured_outputs=held,
    )

    assert (sampling.max_tokens, sampling.structured_outputs) == (5, held)
    assert LoRARequest("vision", 1, "/models/vision-lora").lora_name == "vision"


def test_a_plugin_can_reach_every_process_of_vllm() -> None:
    """The entry point that ties EngineCore to its worker is the service's own."""
    from vllm.plugins import DEFAULT_PLUGINS_GROUP, load_plugins_by_group

    plugins = load_plugins_by_group(DEFAULT_PLUGINS_GROUP)

    assert plugins["phi4"].__module__ == "worker.engines.engine_core"


def test_the_servers_arguments_are_taken_by_an_engine_too(tmp_path: Path) -> None:
    """One PHI4_EXTRA_SERVE_ARGS serves both `phi4 serve` and workers."""
    from worker.engines.vllm_start import engine_args

    arguments = engine_args(["--model", str(tmp_path), "--api-key", "sk-test", "--max_num_seqs", "7"])

    assert (arguments.model, arguments.max_num_seqs) == (str(tmp_path), 7)
