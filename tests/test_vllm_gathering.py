"""Short prompts enter vLLM's batch in company, and nobody waits long for it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test` runs this file in .venv-vllm")

from phi4.job import PRIORITIES

pytestmark = pytest.mark.filterwarnings("ignore")

CLIP, PAGE = 413, 3_434
NORMAL, HIGH = PRIORITIES.index("normal"), PRIORITIES.index("high")


def scheduler(*waiting: int, running: int, priority: int = NORMAL, reading: bool = False) -> Any:
    """One with room for 96 requests, of which `running` run and those of `waiting` tokens wait."""
    from worker.engines.gathering import Gathering  # here, as importing vLLM warns

    made: Any = object.__new__(Gathering)
    made.max_num_running_reqs = 96
    made.running = [SimpleNamespace(is_prefill_chunk=reading and not n) for n in range(running)]
    made.waiting = [SimpleNamespace(priority=priority, num_prompt_tokens=tokens) for tokens in waiting]
    return made


@pytest.mark.parametrize(
    ("waiting", "running", "waits"),
    [
        ([CLIP], 95, True),
        ([CLIP] * 7, 89, True),
        ([CLIP] * 8, 88, False),
        ([CLIP] * 40, 95, True),
        ([CLIP] * 7, 96, False),
        ([], 60, False),
        ([CLIP], 48, True),
        ([CLIP], 47, False),
        ([PAGE], 95, False),
        ([CLIP, PAGE], 90, False),
    ],
    ids=[
        "one clip in a full batch",
        "seven places and clips",
        "eight are enough",
        "many, but one place",
        "no place, so nobody is kept waiting",
        "nobody there",
        "half full",
        "less than half full",
        "a page fills a step alone",
        "a page among clips",
    ],
)
def test_who_waits_for_company(waiting: Sequence[int], running: int, waits: bool) -> None:
    """Only what would have a step nearly for itself, while there is other work to do."""
    assert scheduler(*waiting, running=running)._waits_for_company(0.0) is waits


def test_urgent_requests_do_not_wait() -> None:
    """Somebody may sit there and look at the screen."""
    assert not scheduler(CLIP, running=90, priority=HIGH)._waits_for_company(0.0)


def test_a_prompt_that_is_read_in_pieces_goes_on() -> None:
    """Its next piece makes the step long whether others enter or not."""
    assert not scheduler(CLIP, running=90, reading=True)._waits_for_company(0.0)


def test_nobody_waits_longer_than_a_blink() -> None:
    """And the next one begins to wait anew."""
    one = scheduler(CLIP, running=95)

    assert [one._waits_for_company(at) for at in (1.0, 1.05, 1.09, 1.1, 1.15)] == [True, True, False, True, True]
