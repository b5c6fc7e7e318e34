"""The GPU bench on vLLM's CPU build: answers of a fixed length, alone and through the service's engine."""

from __future__ import annotations

import pytest

from bench.gpu.inputs import Inputs
from tests.vllm_on_cpu import MAX_MODEL_LEN, picture
from worker.engines.base import Call, ReadPage
from worker.engines.phi4 import prompt_for

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test` runs this file in .venv-vllm")

from bench.gpu.fixed import Fixed  # these need vLLM
from bench.gpu.raw import Raw
from worker.engines.vllm import VllmEngine

#: What torch and vLLM warn of is theirs.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]


@pytest.fixture
def fixed(vllm_engine: VllmEngine) -> Fixed:
    """The bench's engine over the one that is already running."""
    engine = Fixed.__new__(Fixed)
    engine.__dict__ = vllm_engine.__dict__
    return engine


def test_the_bench_ends_no_answer_early(fixed: Fixed, vllm_engine: VllmEngine) -> None:
    """Neither by the model's own tokens nor by a caller's words, which the service's engine heeds."""
    prompt = prompt_for(ReadPage(picture(1)), max_model_len=MAX_MODEL_LEN)

    own, ours = vllm_engine.sampling(prompt, 9), fixed.sampling(prompt, 9)

    assert (own.ignore_eos, bool(own.stop_token_ids)) == (False, True)
    assert (ours.ignore_eos, ours.max_tokens, ours.stop_token_ids, ours.stop) == (True, 9, [], [])


def test_an_answer_that_repeats_itself_is_measured_to_its_end(fixed: Fixed) -> None:
    """Random weights loop, and the engine would try such a page again."""
    answer = fixed.run(ReadPage(picture(2), max_tokens=300), Call("fixed"))

    assert answer.completion_tokens == 300


def test_the_engine_alone_answers_pages_and_clips(vllm_engine: VllmEngine) -> None:
    """Through the same AsyncLLM and adapters, without the service's engine."""
    assert vllm_engine._loop is not None
    raw = Raw(vllm_engine._llm, vllm_engine._adapters, vllm_engine._loop, render_threads=2, max_model_len=MAX_MODEL_LEN)
    with Inputs() as inputs:
        samples = [*inputs.pages(1), *inputs.clips(2)]

    assert raw.per_second(samples, tokens=12, in_flight=3) > 0
