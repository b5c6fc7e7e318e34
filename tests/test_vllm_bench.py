"""The GPU bench on vLLM's CPU build: answers of a fixed length, alone and through the service's engine."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bench.gpu.inputs import Inputs, Sample
from tests.vllm_on_cpu import MAX_MODEL_LEN, picture
from worker.engines.base import Call, ReadPage
from worker.engines.phi4 import prompt_for

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test` runs this file in .venv-vllm")

from bench.gpu.fixed import Fixed  # these need vLLM
from bench.gpu.outputs import difference
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


@pytest.fixture
def raw(vllm_engine: VllmEngine) -> Raw:
    """The same AsyncLLM and adapters, without the service's engine."""
    assert vllm_engine._loop is not None
    return Raw(
        vllm_engine._llm, vllm_engine._adapters, vllm_engine._loop, render_threads=2, max_model_len=MAX_MODEL_LEN
    )


@pytest.fixture(scope="module")
def samples() -> Sequence[Sample]:
    """A page and two recordings."""
    with Inputs() as inputs:
        return [*inputs.pages(1), *inputs.clips(2)]


def test_the_engine_alone_answers_pages_and_clips(raw: Raw, samples: Sequence[Sample]) -> None:
    """Prompts are rendered beside its event loop."""
    assert raw.per_second(samples, tokens=12, in_flight=3) > 0


def test_an_engine_thinks_of_its_own_answers_as_it_did_while_writing(raw: Raw, samples: Sequence[Sample]) -> None:
    """Read in one go after the prompt, in place of written one by one: the same token is likeliest at each place."""
    written = raw.answers(samples, tokens=12, in_flight=3)

    found = difference(written, raw.judge(samples, written, in_flight=1))

    assert [len(one.tokens) for one in written] == [12, 12, 12]
    assert found.same == 1.0
    assert found.change == pytest.approx(0.0, abs=1e-3)


def test_an_engine_thinks_otherwise_of_the_answer_to_another_page(raw: Raw, samples: Sequence[Sample]) -> None:
    """Else the comparison would find no difference anywhere."""
    _, *written = raw.answers(samples, tokens=12, in_flight=3)

    found = difference(written, raw.judge(samples[2:0:-1], written, in_flight=1))

    assert found.same < 1.0
    assert found.change > 1e-2
