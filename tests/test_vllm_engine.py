"""The vLLM engine on the real AsyncLLM: a tiny random checkpoint of Phi-4's architecture on vLLM's CPU build."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
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
    EngineUnavailable,
    ImageTooSmall,
    Phi4Error,
    PromptTooLong,
    TooManyImages,
)
from tests.conftest import eventually
from tests.vllm_on_cpu import LASTING, exactly, picture, settings, sound
from worker.engines.base import Answer, AskImages, Call, Chat, ReadPage, Task, TranscribeClip, Turn
from worker.engines.crops import image_tokens
from worker.engines.phi4 import TRANSCRIBE, TRANSLATE

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test` runs this file in .venv-vllm")

from worker.engines.vllm import VllmEngine  # needs vLLM

#: What torch and vLLM warn of is theirs.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]

YES_OR_NO = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}


def ask(engine: VllmEngine, task: Task, **call: Any) -> Answer:
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
    ],
    ids=["page", "larger page", "three images", "clip", "translation", "conversation"],
)
def test_every_kind_of_task_is_answered(vllm_engine: VllmEngine, task: Task, media_tokens: int, words: str) -> None:
    """The weights are random, so the words are noise; that media become their tokens and words come back is not."""
    deltas: list[str] = []

    answer = ask(vllm_engine, task, on_delta=deltas.append)

    assert answer.text
    assert "".join(deltas).strip() == answer.text
    # The tiny tokenizer makes one token of a letter; <|user|>, <|end|> and <|assistant|> are one each.
    assert answer.prompt_tokens == media_tokens + len(words) + 3
    assert 1 <= answer.completion_tokens <= 12
    assert answer.finish_reason in ("stop", "length")


def test_the_picture_and_the_clip_reach_the_model(vllm_engine: VllmEngine) -> None:
    """Another picture or clip gives another answer; the same one gives the same."""
    pages = [ask(vllm_engine, ReadPage(picture(seed), max_tokens=12)).text for seed in (1, 2, 1)]
    clips = [ask(vllm_engine, TranscribeClip(sound(seed), max_tokens=12)).text for seed in (1, 2, 1)]

    assert [pages[0] == pages[1], pages[0] == pages[2]] == [False, True]
    assert [clips[0] == clips[1], clips[0] == clips[2]] == [False, True]


def test_pictures_sound_and_words_take_their_own_adapter(
    vllm_engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the adapters taken away the answers to media change, and the answer to plain words does not."""
    tasks: list[Task] = [
        ReadPage(picture(1), max_tokens=12),
        TranscribeClip(sound(1), max_tokens=12),
        Chat((Turn("user", ("Say something, please.",)),), max_tokens=12),
    ]
    adapted = [ask(vllm_engine, task).text for task in tasks]
    monkeypatch.setattr(vllm_engine, "_adapters", {})

    bare = [ask(vllm_engine, task).text for task in tasks]

    assert [a == b for a, b in zip(adapted, bare, strict=True)] == [False, False, True]


def test_an_answer_is_held_to_its_schema(vllm_engine: VllmEngine) -> None:
    """Even random weights cannot but fit the schema; `data` is the parsed answer."""
    answer = ask(vllm_engine, AskImages((picture(1),), "Is it?", response_schema=YES_OR_NO))

    assert answer.data in ({"yes": True}, {"yes": False})
    assert json.loads(answer.text) == answer.data


def test_text_arrives_while_it_is_written(vllm_engine: VllmEngine) -> None:
    """Deltas come one by one, long before the end, and make up the answer."""
    times: list[float] = []
    lasting = AskImages((picture(1),), "?", response_schema=exactly(200))

    ask(vllm_engine, lasting, on_delta=lambda _: times.append(time.monotonic()))

    assert len(times) > 20
    assert times[0] < times[len(times) // 2] < times[-1]


def test_a_cancelled_task_leaves_the_engine(vllm_engine: VllmEngine) -> None:
    """The worker sets the flag (cancel and deadline alike); the request is out of the engine when `Cancelled` comes."""
    cancelled, heard = threading.Event(), threading.Event()
    lasting = AskImages((picture(1),), "?", response_schema=exactly(LASTING))
    with ThreadPoolExecutor(1) as pool:
        call: dict[str, Any] = {"cancelled": cancelled, "on_delta": lambda _: heard.set()}
        running = pool.submit(ask, vllm_engine, lasting, **call)
        assert heard.wait(30)
        assert vllm_engine.running == 1
        cancelled.set()

        with pytest.raises(Cancelled):
            running.result(30)

    assert vllm_engine.running == 0


def test_urgent_work_overtakes(vllm_engine: VllmEngine) -> None:
    """Priorities reach vLLM's scheduler: with every seat taken, what is urgent gets the next one."""
    ended: list[str] = []

    def run(name: str, priority: int, characters: int) -> None:
        task = AskImages((picture(1, 56, 56),), "?", response_schema=exactly(characters))
        vllm_engine.run(task, Call(request_id=name, priority=priority))
        ended.append(name)

    seats = vllm_engine.slots
    with ThreadPoolExecutor(seats + 8) as pool:
        for n in range(seats):
            pool.submit(run, "first", 0, 60 + 4 * n)  # their seats fall free one after the other
        eventually(lambda: vllm_engine.running == seats)
        for _ in range(4):
            pool.submit(run, "later", 2, 5)
        eventually(lambda: vllm_engine.running == seats + 4)
        for _ in range(4):
            pool.submit(run, "urgent", 1, 5)

    assert [name for name in ended if name != "first"] == ["urgent"] * 4 + ["later"] * 4


def test_many_together_are_faster_than_one_by_one(vllm_engine: VllmEngine) -> None:
    """32 parts in flight share the engine's steps; that is what the worker holds them for."""
    tasks = [AskImages((picture(n, 56, 56),), "?", response_schema=exactly(20)) for n in range(32)]

    def seconds(in_flight: int, tasks: list[AskImages]) -> float:
        began = time.monotonic()
        with ThreadPoolExecutor(in_flight) as pool:
            assert len(list(pool.map(lambda t: ask(vllm_engine, t), tasks))) == len(tasks)
        return (time.monotonic() - began) / len(tasks)

    assert seconds(32, tasks) < seconds(1, tasks[:8])


def test_a_page_that_loops_is_tried_warmer_and_then_given_up(
    vllm_engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three tries at rising temperature, each announced, so that a reader drops what it heard of the last."""
    warmth: list[float] = []
    sampling = vllm_engine.sampling

    def looping(prompt: Any, max_tokens: int) -> Any:
        warmth.append(prompt.temperature)
        return sampling(replace(prompt, schema={"const": "round " * 150}), max_tokens)

    monkeypatch.setattr(vllm_engine, "sampling", looping)
    restarts: list[int] = []

    with pytest.raises(AnswerLoops, match="tried 3 times"):
        ask(vllm_engine, ReadPage(picture(1)), on_restart=lambda: restarts.append(1))

    assert warmth == [0.0, 0.3, 0.6]
    assert len(restarts) == 2
    assert vllm_engine.running == 0


def test_an_abort_nobody_asked_for_is_no_answer(vllm_engine: VllmEngine) -> None:
    """EngineCore ends requests so when it is told to stop; half an answer must not pass for one."""
    heard = threading.Event()
    lasting = AskImages((picture(1),), "?", response_schema=exactly(LASTING))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, vllm_engine, lasting, on_delta=lambda _: heard.set())
        assert heard.wait(30)
        loop, llm = vllm_engine._loop, vllm_engine._llm
        assert loop is not None
        loop.submit(llm.abort("test-0")).result(10)

        with pytest.raises(Phi4Error, match="ended the request early") as caught:
            running.result(30)

    assert caught.value.retryable


BAD: dict[str, tuple[Task, type[Phi4Error], str]] = {
    "words longer than the context": (
        Chat((Turn("user", ("x" * 9_000,)),)),
        PromptTooLong,
        "9003 tokens long, and the model was started for 8192",
    ),
    "picture, sound and words longer than the context": (
        Chat((Turn("user", (picture(1), sound(1, 4.0), "x" * 9_000)),)),
        PromptTooLong,
        f"{9_003 + 545 + 50} tokens long, and the model was started for 8192",
    ),
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
        "cannot be asked this",
    ),
    "a schema that would only be held in part": (
        AskImages((picture(1),), "?", response_schema={"type": "array", "items": {"enum": [1]}, "uniqueItems": True}),
        CannotAnswer,
        "cannot be asked this: .* not supported by xgrammar",
    ),
    "JSON that a stop word cuts": (
        Chat((Turn("user", ("?",)),), response_schema=exactly(100), stop=('"',)),
        AnswerCut,
        "`stop` ended the answer",
    ),
    "JSON cut short": (
        AskImages((picture(1),), "?", response_schema=exactly(100), max_tokens=20),
        AnswerCut,
        "no end after 20 tokens",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_answered_says_why_and_harms_nothing(vllm_engine: VllmEngine, name: str) -> None:
    """A clear error of the job's own, not to be tried again; the engine answers the next one."""
    task, error, message = BAD[name]

    with pytest.raises(error, match=message) as caught:
        ask(vllm_engine, task)

    assert not caught.value.retryable
    assert ask(vllm_engine, ReadPage(picture(1), max_tokens=4)).text
    assert vllm_engine.running == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [("--no-such-flag", "unrecognized arguments: --no-such-flag"), ("--dtype float33", "invalid choice: 'float33'")],
)
def test_wrong_extra_arguments_are_named(
    tiny_phi4: Path, arguments: str, message: str, vllm_engine: VllmEngine
) -> None:
    """vLLM's own parser reads PHI4_EXTRA_SERVE_ARGS, and its complaint is passed on."""
    wrong = VllmEngine(settings(tiny_phi4).model_copy(update={"extra_serve_args": arguments}))

    with pytest.raises(EngineUnavailable, match=f"PHI4_EXTRA_SERVE_ARGS.*{message}"):
        wrong.start(lambda _: None)


def test_an_engine_that_was_never_started_answers_nothing(tiny_phi4: Path) -> None:
    """`check` and `run` say so, and stopping it is no error."""
    engine = VllmEngine(settings(tiny_phi4))
    calls: list[Callable[[], object]] = [engine.check, lambda: ask(engine, ReadPage(picture(1)))]

    for call in calls:
        with pytest.raises(Phi4Error, match="not running"):
            call()
    engine.stop()
