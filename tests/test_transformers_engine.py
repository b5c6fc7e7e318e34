"""The transformers engine on a tiny random checkpoint: the same tasks, limits and errors as the vLLM engine."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phi4.errors import (
    AnswerCut,
    AnswerLoops,
    AudioTooShort,
    Cancelled,
    CannotAnswer,
    EngineDead,
    ImageTooSmall,
    Phi4Error,
    PromptTooLong,
    TooManyImages,
)
from phi4.settings import Settings, load
from tests.vllm_on_cpu import exactly, picture, sound
from worker.engines import loops
from worker.engines.base import Answer, AskImages, Call, Chat, ReadPage, Task, TranscribeClip, Turn
from worker.engines.crops import image_tokens
from worker.engines.phi4 import TRANSCRIBE, TRANSLATE, Prompt, prompt_for

pytest.importorskip("transformers", reason="transformers is not installed here; `make test` runs this in .venv-vllm")
pytest.importorskip("peft", reason="peft is not installed here; `make test` runs this file in .venv-vllm")

from worker.engines import transformers as engine_module  # needs transformers
from worker.engines.transformers import TransformersEngine

#: What torch and transformers warn of is theirs.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]

YES_OR_NO = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
#: More than a test ever waits for.
LASTING = AskImages((picture(1, 56, 56),), "?", response_schema=exactly(2_000), max_tokens=3_000)


def settings(folder: Path) -> Settings:
    """Settings for the engine in the test's own process."""
    return load(engine="transformers", checkpoint=str(folder), max_model_len=8_192, cpu_threads=1)


@pytest.fixture(scope="module")
def engine(tiny_native_phi4: Path) -> Iterator[TransformersEngine]:
    """The engine, started once."""
    started = TransformersEngine(settings(tiny_native_phi4))
    started.start(lambda _: None)
    yield started
    started.stop()


def ask(engine: TransformersEngine, task: Task, **call: Any) -> Answer:
    """The engine's answer to one task."""
    return engine.run(task, Call(request_id="test", **call))


@pytest.mark.parametrize(
    ("task", "media_tokens", "words"),
    [
        (ReadPage(picture(1), prompt="Read.", max_tokens=12), 545, "Read."),
        (ReadPage(picture(2, 1000, 700), prompt="Read.", max_tokens=12), 1777, "Read."),
        (
            AskImages((picture(3), picture(4, 900, 448), picture(5, 300, 700)), "Which?", max_tokens=12),
            545 + image_tokens(900, 448) + image_tokens(300, 700),
            "Which?",
        ),
        (TranscribeClip(sound(6, 4.0), max_tokens=12), 50, TRANSCRIBE),
        (
            TranscribeClip(sound(7, 4.0), task="translate", target_language="fr", max_tokens=12),
            50,
            TRANSLATE.format(language="French"),
        ),
        (Chat((Turn("user", ("Hello",)),), max_tokens=12), 0, "Hello"),
        (Chat((Turn("user", (picture(1), sound(6, 4.0), sound(1, 2.0), "Hm")),), max_tokens=12), 545 + 50 + 25, "Hm"),
    ],
    ids=["page", "larger page", "three images", "clip", "translation", "conversation", "image and clips"],
)
def test_every_kind_of_task_is_answered(engine: TransformersEngine, task: Task, media_tokens: int, words: str) -> None:
    """Media become as many tokens as in vLLM, and words come back, piece by piece."""
    deltas: list[str] = []

    answer = ask(engine, task, on_delta=deltas.append)

    assert answer.text
    assert len(deltas) > 1
    assert "".join(deltas).strip() == answer.text
    # The tiny tokenizer makes one token of a letter; <|user|>, <|end|> and <|assistant|> are one each.
    assert answer.prompt_tokens == media_tokens + len(words) + 3
    assert 1 <= answer.completion_tokens <= 12
    assert answer.finish_reason in ("stop", "length")


def test_the_picture_and_the_clip_reach_the_model(engine: TransformersEngine) -> None:
    """Another picture or clip gives another answer; the same one gives the same."""
    pages = [ask(engine, ReadPage(picture(seed), max_tokens=12)).text for seed in (1, 2, 1)]
    clips = [ask(engine, TranscribeClip(sound(seed), max_tokens=12)).text for seed in (1, 2, 1)]

    assert [pages[0] == pages[1], pages[0] == pages[2]] == [False, True]
    assert [clips[0] == clips[1], clips[0] == clips[2]] == [False, True]


def test_pictures_sound_and_words_take_their_own_adapter(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the other adapter the answers to media change; plain words take none, so that nothing changes theirs."""
    tasks: list[Task] = [
        ReadPage(picture(1), max_tokens=12),
        TranscribeClip(sound(1), max_tokens=12),
        Chat((Turn("user", ("Say something, please.",)),), max_tokens=12),
    ]
    adapted = [ask(engine, task).text for task in tasks]
    other: dict[str | None, Any] = {"vision": "speech", "speech": "vision", None: None}

    def with_the_other(task: Task, **limits: Any) -> Prompt:
        prompt = prompt_for(task, **limits)
        return replace(prompt, adapter=other[prompt.adapter])

    monkeypatch.setattr(engine_module, "prompt_for", with_the_other)
    changed = [ask(engine, task).text for task in tasks]

    assert [a == b for a, b in zip(adapted, changed, strict=True)] == [False, False, True]


def test_an_answer_is_held_to_its_schema(engine: TransformersEngine) -> None:
    """Even random weights cannot but fit the schema; `data` is the parsed answer."""
    answer = ask(engine, AskImages((picture(1),), "Is it?", response_schema=YES_OR_NO))

    assert answer.data in ({"yes": True}, {"yes": False})
    assert json.loads(answer.text) == answer.data
    assert answer.finish_reason == "stop"


def test_without_xgrammar_a_schema_is_refused(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that only may fit would be worse than none."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(CannotAnswer, match="pip install xgrammar"):
        ask(engine, AskImages((picture(1, 56, 56),), "?", response_schema=YES_OR_NO))


def test_a_stop_string_ends_the_answer_and_is_not_shown(engine: TransformersEngine) -> None:
    """Nor is its beginning ever sent as a delta."""
    chat = Chat((Turn("user", ("Hello",)),), max_tokens=24, temperature=1.0, seed=3)
    whole = ask(engine, chat).text
    deltas: list[str] = []

    cut = ask(engine, replace(chat, stop=(whole[5:8],)), on_delta=deltas.append)

    expected = whole[: whole.index(whole[5:8])]
    assert ("".join(deltas), cut.text, cut.finish_reason) == (expected, expected.strip(), "stop")


def test_a_seed_draws_the_same_answer_again(engine: TransformersEngine) -> None:
    """And another seed another one."""
    chat = Chat((Turn("user", ("Hello",)),), max_tokens=24, temperature=1.0)

    said = [ask(engine, replace(chat, seed=seed)).text for seed in (1, 2, 1)]

    assert [said[0] == said[1], said[0] == said[2]] == [False, True]


def test_a_cancelled_task_ends_at_its_next_token(engine: TransformersEngine) -> None:
    """The worker sets the flag (cancel and deadline alike); whoever waits for the model is next."""
    cancelled, heard = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        call: dict[str, Any] = {"cancelled": cancelled, "on_delta": lambda _: heard.set()}
        running = pool.submit(ask, engine, LASTING, **call)
        assert heard.wait(60)
        waiting = pool.submit(ask, engine, ReadPage(picture(1), max_tokens=4))
        cancelled.set()

        with pytest.raises(Cancelled):
            running.result(60)
        assert waiting.result(60).text


def test_a_task_cancelled_while_it_waits_never_starts(engine: TransformersEngine) -> None:
    """It leaves while the one before it goes on."""
    first, second, heard = threading.Event(), threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        call: dict[str, Any] = {"cancelled": first, "on_delta": lambda _: heard.set()}
        running = pool.submit(ask, engine, LASTING, **call)
        assert heard.wait(60)
        waiting = pool.submit(ask, engine, ReadPage(picture(1)), cancelled=second)
        second.set()

        with pytest.raises(Cancelled):
            waiting.result(60)
        assert not running.done()
        first.set()
        with pytest.raises(Cancelled):
            running.result(60)


def test_a_long_prompt_is_cancelled_between_layers(engine: TransformersEngine) -> None:
    """On a CPU the first token may take a minute; nothing of it is said, and the last layer is not reached."""
    assert engine._loaded is not None
    layers = engine._loaded.model.model.layers
    cancelled = threading.Event()
    reached: list[int] = []
    hooks = [
        layers[0].register_forward_pre_hook(lambda *_: cancelled.set()),
        layers[-1].register_forward_hook(lambda *_: reached.append(1)),
    ]
    try:
        with pytest.raises(Cancelled):
            ask(engine, ReadPage(picture(1)), cancelled=cancelled)
    finally:
        for hook in hooks:
            hook.remove()

    assert reached == []


def test_a_page_that_loops_is_tried_warmer_and_then_given_up(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three tries at rising temperature, each announced, so that a reader drops what it heard of the last."""
    monkeypatch.setattr(loops, "SHORTEST_RUN", 16)
    warmth: list[float] = []
    generation = engine_module._generation

    def looping(task: Task, **limits: Any) -> Prompt:
        return replace(prompt_for(task, **limits), schema={"const": "ab" * 30})

    def recorded(prompt: Prompt, room: int) -> Any:
        warmth.append(prompt.temperature)
        return generation(prompt, room)

    monkeypatch.setattr(engine_module, "prompt_for", looping)
    monkeypatch.setattr(engine_module, "_generation", recorded)
    restarts: list[int] = []

    with pytest.raises(AnswerLoops, match="tried 3 times"):
        ask(engine, ReadPage(picture(1, 56, 56)), on_restart=lambda: restarts.append(1))

    assert warmth == [0.0, 0.3, 0.6]
    assert len(restarts) == 2


BAD: dict[str, tuple[Task, type[Phi4Error], str]] = {
    "words longer than the context": (Chat((Turn("user", ("x" * 9_000,)),)), PromptTooLong, r"9003 tokens .* 8192"),
    "pictures larger than the context": (
        AskImages(tuple(picture(n) for n in range(15)), "?", detail="high"),
        PromptTooLong,
        r"15 images take 8175 tokens .* 8128",
    ),
    "more pictures than fit": (Chat((Turn("user", (picture(1, 28, 28),) * 16),)), Phi4Error, "16 images"),
    "more clips than fit": (Chat((Turn("user", (sound(1),) * 5),)), TooManyImages, "5 clips; at most 4"),
    "sound of 10 ms": (TranscribeClip(np.zeros(160, np.float32)), AudioTooShort, "0.010 s"),
    "picture of 1 × 5000": (ReadPage(picture(1, 1, 5_000)), ImageTooSmall, "1 × 5000"),
    "a schema no grammar can hold": (
        AskImages((picture(1),), "?", response_schema={"type": "string", "pattern": "(?<=a)b"}),
        CannotAnswer,
        "cannot be held to this schema",
    ),
    "JSON cut short": (
        AskImages((picture(1),), "?", response_schema=exactly(100), max_tokens=20),
        AnswerCut,
        "no end after 20 tokens",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_answered_says_why_and_harms_nothing(engine: TransformersEngine, name: str) -> None:
    """A clear error of the job's own, not to be tried again; the engine answers the next one."""
    task, error, message = BAD[name]

    with pytest.raises(error, match=message) as caught:
        ask(engine, task)

    assert not caught.value.retryable
    assert ask(engine, Chat((Turn("user", ("Hello",)),), max_tokens=4)).text


def test_a_failure_of_the_gpu_is_the_end(tiny_native_phi4: Path) -> None:
    """After CUDA has failed it answers nothing more; the worker leaves, and its supervisor starts another."""
    broken = TransformersEngine(settings(tiny_native_phi4))

    with pytest.raises(EngineDead, match="illegal memory access"), broken._failures():
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with …")

    with pytest.raises(EngineDead, match="The GPU failed"):
        broken.check()


def test_an_engine_that_was_never_started_answers_nothing(tiny_native_phi4: Path) -> None:
    """`check` and `run` say so, and stopping it is no error."""
    engine = TransformersEngine(settings(tiny_native_phi4))
    calls: list[Callable[[], object]] = [engine.check, lambda: ask(engine, ReadPage(picture(1)))]

    for call in calls:
        with pytest.raises(EngineDead, match="not loaded"):
            call()
    engine.stop()
