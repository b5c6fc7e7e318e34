"""Takes GPUs for this worker alone, so that workers of one machine can be started alike, each on its own cards.

Several may also live on one card, but load their models one after the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from phi4.errors import EngineUnavailable
from worker.engines.gpu import Card

_log = logging.getLogger(__name__)
#: Held until the process ends, however it ends: the kernel lets go of them.
_held: list[IO[str]] = []


def claim(cards: Sequence[Card], count: int, folder: Path) -> tuple[Card, ...]:
    """Take the first `count` cards that no other worker holds, and hide the others from CUDA.

    Workers agree through locks on files in `folder`, which those of one machine share. With no more cards than needed
    there is nothing to agree on. Raises `EngineUnavailable` when too few are free.
    """
    if len(cards) <= count:
        return tuple(cards)
    try:
        taken = _taken(cards, count, folder)
    except OSError as error:
        raise EngineUnavailable(
            f"Workers share out GPUs through files in {folder}, which does not work: {error}"
        ) from None
    if len(taken) < count:
        for _, lock in taken:
            lock.close()
        raise EngineUnavailable(
            f"This worker needs {count} GPU{'s' * (count > 1)}, and {len(taken)} of {len(cards)} are free: the others "
            "are held by workers that run already. Start fewer workers, or set TENSOR_PARALLEL_SIZE lower."
        )
    _held.extend(lock for _, lock in taken)
    mine = tuple(card for card, _ in taken)
    # Numbers, not ids: vLLM reads them as such. They are nvidia-smi's, which counts along the bus.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(card.index) for card in mine)
    return mine


@contextlib.contextmanager
def loading_alone(cards: Sequence[Card], folder: Path, stage: Callable[[str], None]) -> Iterator[None]:
    """Let no other worker of this folder load a model onto these cards during the block; waits as long as one does.

    vLLM measures how much of a card it may take, and counts what others take meanwhile as its own. A folder that cannot
    be written is no reason not to start: few workers share a card.
    """
    with contextlib.ExitStack() as stack:
        try:
            for card in sorted(cards, key=lambda card: card.uuid):  # in one order: none waits for one that waits
                _lock_in_turn(folder, f"{card.uuid}.loading", stage, stack)
        except OSError as error:
            _log.warning("Another worker may load a model onto the same GPU meanwhile: %s", error)
        yield


def _lock_in_turn(folder: Path, name: str, stage: Callable[[str], None], stack: contextlib.ExitStack) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = stack.enter_context((folder / name).open("w"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stage("waiting for the GPU")
        fcntl.flock(file, fcntl.LOCK_EX)
        stage("loading")
    # Not by closing alone: a process that was forked meanwhile would hold on to it.
    stack.callback(fcntl.flock, file, fcntl.LOCK_UN)


def _taken(cards: Sequence[Card], count: int, folder: Path) -> list[tuple[Card, IO[str]]]:
    folder.mkdir(parents=True, exist_ok=True)
    taken: list[tuple[Card, IO[str]]] = []
    for card in cards:
        if len(taken) < count and (lock := _lock(folder / f"{card.uuid}.lock")) is not None:
            taken.append((card, lock))
    return taken


def _lock(path: Path) -> IO[str] | None:
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    # `phi4 serve` becomes vLLM's server, which goes on holding them; children are given no files all the same.
    os.set_inheritable(file.fileno(), True)
    return file
