"""The gate lets units run side by side, and a suspect alone."""

from __future__ import annotations

import threading

import pytest

from phi4.errors import Cancelled
from tests.conftest import eventually
from worker.gate import Gate


class Runner(threading.Thread):
    """Something that goes through the gate and stays inside until told to leave."""

    def __init__(self, gate: Gate, *, suspect: bool = False) -> None:
        super().__init__(daemon=True)
        self._way = gate.alone if suspect else gate.beside_others
        self.inside, self.leave, self.stopped = threading.Event(), threading.Event(), threading.Event()
        self.was_stopped = False
        self.start()

    def run(self) -> None:
        """Enter, wait, leave; or be told to stop before."""
        try:
            with self._way(self.stopped):
                self.inside.set()
                assert self.leave.wait(20)
        except Cancelled:
            self.was_stopped = True

    def go(self) -> None:
        """Leave, and be gone."""
        self.leave.set()
        self.join(20)
        assert not self.is_alive()


def stays_outside(runner: Runner) -> bool:
    """Whether it does not come in, given time to."""
    return not runner.inside.wait(0.1)


def test_units_run_side_by_side() -> None:
    """As many as come."""
    gate = Gate()
    units = [Runner(gate) for _ in range(5)]
    assert all(u.inside.wait(20) for u in units)
    for unit in units:
        unit.go()


def test_a_suspect_waits_until_all_have_left() -> None:
    """The last one counts."""
    gate = Gate()
    units = [Runner(gate) for _ in range(2)]
    assert all(u.inside.wait(20) for u in units)
    suspect = Runner(gate, suspect=True)
    assert stays_outside(suspect)
    units[0].go()
    assert stays_outside(suspect)
    units[1].go()
    assert suspect.inside.wait(20)
    suspect.go()


def test_nothing_comes_in_beside_a_suspect() -> None:
    """Neither a unit nor another suspect; both come in when it has left."""
    gate = Gate()
    suspect = Runner(gate, suspect=True)
    assert suspect.inside.wait(20)
    unit, second = Runner(gate), Runner(gate, suspect=True)
    assert stays_outside(unit)
    assert stays_outside(second)
    suspect.go()
    for runner in (unit, second):
        runner.leave.set()
    assert eventually(lambda: unit.inside.is_set() and second.inside.is_set(), what="their turns")


def test_a_suspect_that_waits_is_not_passed() -> None:
    """Or work that keeps coming would hold it up for ever."""
    gate = Gate()
    first = Runner(gate)
    assert first.inside.wait(20)
    suspect = Runner(gate, suspect=True)
    assert stays_outside(suspect)
    late = Runner(gate)
    assert stays_outside(late)
    first.go()
    assert suspect.inside.wait(20)
    assert stays_outside(late)
    suspect.go()
    assert late.inside.wait(20)
    late.go()


def test_a_failure_inside_leaves_the_gate_open() -> None:
    """What a unit throws goes through, and the next one comes in."""
    gate = Gate()
    for way in (gate.alone, gate.beside_others, gate.alone):
        with pytest.raises(ZeroDivisionError), way(threading.Event()):
            _ = 1 / 0


def test_many_of_both_kinds_never_meet_wrongly() -> None:
    """Whenever a suspect is inside, it is the only one."""
    gate, lock = Gate(), threading.Lock()
    inside = {"units": 0, "suspects": 0}
    wrong: list[dict[str, int]] = []

    def go(kind: str, times: int) -> None:
        for _ in range(times):
            with (gate.alone if kind == "suspects" else gate.beside_others)(threading.Event()):
                with lock:
                    inside[kind] += 1
                    if inside["suspects"] > 1 or (inside["suspects"] and inside["units"]):
                        wrong.append(dict(inside))
                with lock:
                    inside[kind] -= 1

    threads = [threading.Thread(target=go, args=(kind, 200)) for kind in ("units", "units", "units", "suspects") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(t.is_alive() for t in threads)
    assert wrong == []


@pytest.mark.parametrize("suspect", [False, True])
def test_what_is_told_to_stop_waits_no_longer(suspect: bool) -> None:
    """Its worker would take it for hung; and others come in where a suspect has given up."""
    gate = Gate()
    first = Runner(gate, suspect=not suspect)
    assert first.inside.wait(20)
    waits = Runner(gate, suspect=suspect)
    assert stays_outside(waits)

    waits.stopped.set()
    waits.join(20)

    assert (waits.was_stopped, waits.inside.is_set()) == (True, False)
    first.go()
    late = Runner(gate)
    assert late.inside.wait(20)
    late.go()
