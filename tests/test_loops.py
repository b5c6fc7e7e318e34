"""How an answer that runs in circles is told from one that repeats for a reason."""

from __future__ import annotations

import pytest

from phi4.errors import AnswerLoops
from worker.engines.attempt import Said, answer
from worker.engines.base import Call
from worker.engines.loops import LoopWatch, runs_in_circles
from worker.engines.phi4 import RETRY_TEMPERATURES, Prompt

_TABLE = "| Item | Amount | Price |\n|------|--------|-------|\n"
_PROSE = "".join(f"Sentence {n} says something that no other sentence says. " for n in range(60))

LOOPING = {
    "one word": "Invoice " + "total " * 200,
    "one character": "The sum is " + "0" * 700,
    "a line of a table": _TABLE + "| Paper | 2 | 3.50 |\n" * 40,
    "a sentence": _PROSE + "I cannot see anything else on this page. " * 20,
    "several lines": _PROSE + "First line of a block\nsecond line of it\nand a third one, longer\n\n" * 12,
    "cut inside the piece": _PROSE + "over and over again, " * 40 + "over and o",
}
REPEATING = {
    "nothing": "",
    "prose": _PROSE,
    "dot leaders": "\n".join(f"Chapter {n} {'.' * 120} {n}" for n in range(40)),
    "a rule": _PROSE + "-" * 200,
    "a blank form": _TABLE + "|  |  |  |\n" * 30,
    "a rhyme": "Row, row, row your boat, gently down the stream. " * 4,
    "a loop long before the end": "na " * 400 + _PROSE,
}


@pytest.mark.parametrize("name", LOOPING)
def test_a_loop_is_noticed(name: str) -> None:
    """The end of the text is one piece said over and over."""
    assert runs_in_circles(LOOPING[name])


@pytest.mark.parametrize("name", REPEATING)
def test_what_stands_on_pages_is_no_loop(name: str) -> None:
    """Leaders, rules, empty rows and rhymes repeat too, but not for so long."""
    assert not runs_in_circles(REPEATING[name])


@pytest.mark.parametrize("step", [1, 7, 300])
def test_a_growing_answer_is_stopped_soon_after_its_loop_begins(step: int) -> None:
    """However the answer arrives, it is stopped within two thousand characters, and not before it loops."""
    text = _PROSE + "again and again, " * 1_000
    watch = LoopWatch()

    stopped = next(end for end in range(step, len(text), step) if watch.hears_a_loop(text[end - step : end]))

    assert len(_PROSE) + 600 <= stopped <= len(_PROSE) + 2_000


ENDLESS = {
    "circles": (Said("na na", 70, "length", loops=True), "The model repeats itself without end; tried 3 times."),
    "a page denser than its limit": (
        Said("dense", 4_096, "length"),
        "The answer has no end within 4096 tokens; name `params.max_tokens` to be given what fits in them; "
        "tried 3 times.",
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_never_ends_is_tried_warmer_and_then_told(name: str) -> None:
    """A reader hears that the text begins anew, and why it was given up."""
    said, message = ENDLESS[name]
    warmth: list[float] = []
    restarts: list[None] = []

    def ask(prompt: Prompt, _: int) -> Said:
        warmth.append(prompt.temperature)
        return said

    with pytest.raises(AnswerLoops) as caught:
        answer(Prompt("?", retries=RETRY_TEMPERATURES), Call(on_restart=lambda: restarts.append(None)), ask)

    assert (str(caught.value), warmth, len(restarts)) == (message, [0.0, 0.3, 0.6], 2)


def test_a_page_that_ends_when_it_is_warmer_is_taken() -> None:
    """And no further try is made."""
    tries = iter([Said("na na", 70, "length", loops=True), Said(" well ", 5, "stop", prompt_tokens=9)])

    taken = answer(Prompt("?", retries=RETRY_TEMPERATURES), Call(), lambda *_: next(tries))

    assert (taken.text, taken.finish_reason, taken.prompt_tokens, taken.completion_tokens) == ("well", "stop", 9, 5)


def test_a_cut_that_the_caller_asked_for_is_an_answer() -> None:
    """Who names `max_tokens` is given what fits."""
    asked = Prompt("?", retries=RETRY_TEMPERATURES, cut_is_wanted=True)

    assert answer(asked, Call(), lambda *_: Said("half", 9, "length")).finish_reason == "length"
