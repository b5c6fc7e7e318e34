"""How workers of one machine share out its GPUs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from phi4.errors import EngineUnavailable
from tests.conftest import ROOT, eventually
from worker.engines import claim as claiming
from worker.engines.claim import claim, loading_alone
from worker.engines.gpu import Card

GB = 1 << 30
CARDS = [Card(n, f"GPU-{n}", "NVIDIA H200", "580", 140 * GB, 139 * GB) for n in range(4)]


@pytest.fixture(autouse=True)
def released(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test takes is given back after it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    yield
    while claiming._held:
        claiming._held.pop().close()


def taken(folder: Path, count: int = 1) -> list[int]:
    """The numbers of the cards that a claim gives, which are all that CUDA may see."""
    numbers = [card.index for card in claim(CARDS, count, folder)]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, numbers))
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    return numbers


def test_every_worker_gets_cards_of_its_own(tmp_path: Path) -> None:
    """One after the other, and as many as tensor parallelism needs."""
    assert [taken(tmp_path), taken(tmp_path, 2), taken(tmp_path)] == [[0], [1, 2], [3]]


def test_too_few_free_cards_are_said_and_none_is_kept(tmp_path: Path) -> None:
    """The message names how many are needed, free, and there."""
    taken(tmp_path, 3)

    with pytest.raises(EngineUnavailable, match=r"needs 2 GPUs, and 1 of 4 are free"):
        claim(CARDS, 2, tmp_path)

    assert taken(tmp_path) == [3]


def test_a_worker_that_is_killed_lets_go_of_its_cards(tmp_path: Path) -> None:
    """The kernel does it."""
    held = (
        "import sys; from pathlib import Path; from tests.test_claim import CARDS, claim;"
        "print(claim(CARDS, 1, Path(sys.argv[1]))[0].index, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", held, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "0\n"
        assert taken(tmp_path) == [1]
        other.kill()
        other.wait()

    assert taken(tmp_path) == [0]


def test_a_process_that_becomes_another_program_keeps_its_cards(tmp_path: Path) -> None:
    """As `phi4 serve` becomes vLLM's server; what it starts besides holds nothing."""
    held = (
        "import os, subprocess, sys; from pathlib import Path; from tests.test_claim import CARDS, claim;"
        "claim(CARDS, 1, Path(sys.argv[1])); subprocess.Popen(['sleep', '60']);"
        "print(flush=True); os.execv('/bin/cat', ['cat'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", held, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write("now it is cat\n")
        other.stdin.flush()
        assert [other.stdout.readline(), other.stdout.readline()] == ["\n", "now it is cat\n"]
        assert taken(tmp_path) == [1]
        other.kill()
        other.wait()

    assert taken(tmp_path) == [0]


@pytest.mark.parametrize("cards", [[], CARDS[:1]])
def test_with_no_more_cards_than_needed_there_is_nothing_to_share(tmp_path: Path, cards: list[Card]) -> None:
    """Two workers may live on one big card; whether both fit is the memory check's question."""
    assert claim(cards, 1, tmp_path) == tuple(cards)
    assert claim(cards, 1, tmp_path) == tuple(cards)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1,2,3"


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Rather than that all cards are held."""
    (tmp_path / "gpus").write_text("no folder")

    with pytest.raises(EngineUnavailable, match=r"through files in .*gpus, which does not work: .*File exists"):
        claim(CARDS, 1, tmp_path / "gpus")


def test_workers_that_share_a_card_load_one_after_the_other(tmp_path: Path) -> None:
    """vLLM would take the other's memory for its own; the second says what it waits for."""
    order: list[str] = []

    def second() -> None:
        with loading_alone(CARDS[:2], tmp_path, order.append):
            order.append("second")

    with loading_alone(CARDS[1:3], tmp_path, order.append):
        other = threading.Thread(target=second)
        other.start()
        eventually(lambda: order)
        order.append("first is done")
    other.join(10)

    assert order == ["waiting for the GPU", "first is done", "loading", "second"]


def test_workers_with_cards_of_their_own_load_at_once(tmp_path: Path) -> None:
    """Nobody waits for a stranger's card; without cards there is nothing to wait for."""
    told: list[str] = []

    with (
        loading_alone(CARDS[:1], tmp_path, told.append),
        loading_alone(CARDS[1:], tmp_path, told.append),
        loading_alone([], tmp_path / "none", told.append),
    ):
        pass

    assert told == []
    assert not (tmp_path / "none").exists()


def test_a_process_that_was_forked_meanwhile_does_not_hold_the_card(tmp_path: Path) -> None:
    """As EngineCore is, where vLLM is told to fork."""
    with loading_alone(CARDS[:1], tmp_path, print):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)

    told: list[str] = []
    with loading_alone(CARDS[:1], tmp_path, told.append):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert told == []


def test_what_fails_while_loading_lets_go(tmp_path: Path) -> None:
    """The next worker may try."""
    with pytest.raises(EngineUnavailable), loading_alone(CARDS[:1], tmp_path, print):
        raise EngineUnavailable("no weights")

    told: list[str] = []
    with loading_alone(CARDS[:1], tmp_path, told.append):
        assert told == []


def test_a_folder_that_cannot_be_used_keeps_nobody_from_loading(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Most cards have one worker."""
    (tmp_path / "gpus").write_text("no folder")

    with loading_alone(CARDS[:1], tmp_path / "gpus", print):
        assert "Another worker may load a model onto the same GPU meanwhile" in caplog.text
