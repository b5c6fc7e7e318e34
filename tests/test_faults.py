"""One short round of the faults that `make faults` runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from bench.faults.kept import kept, table
from bench.faults.listed import FAULTS
from bench.faults.run import Fault, Stage, run, stage
from bench.faults.soak import keys_for_ever

#: Too long for every run of the tests; test_recovery, test_hanging_part and test_vllm_worker show what they show.
LONG = {"poison", "hang", "engine", "soak"}


#: These need a service that was started in another way.
OWN = {"redis-slow", "disk-full", "ctrl-c"}


@pytest.fixture(scope="module")
def common() -> Iterator[Stage]:
    """A service that one fault after the other meets."""
    with stage(FAULTS["kill"], short=True) as at:
        yield at


def check(fault: Fault, at: Stage) -> None:
    """One short round costs nothing."""
    said: list[str] = []
    record = run(fault, 1, at, short=True, say=said.append)

    assert record.is_clean, said


@pytest.mark.parametrize("name", sorted(FAULTS.keys() - LONG - OWN))
def test_a_fault_costs_no_job(common: Stage, name: str) -> None:
    """Nothing that was accepted is lost, done twice, or left without an end."""
    check(FAULTS[name], common)


@pytest.mark.parametrize("name", sorted(OWN))
def test_a_fault_of_a_service_of_its_own_costs_no_job(name: str) -> None:
    """The same, behind a slow proxy, on a small disk, and as one command."""
    with stage(FAULTS[name], short=True) as at:
        check(FAULTS[name], at)


def test_load_leaves_nothing_behind(common: Stage) -> None:
    """A few seconds of what `make faults` does for two hours: every key has a time to live."""
    check(
        replace(
            FAULTS["soak"], strike=lambda scene: scene.wait(5, 5), after=lambda scene: keys_for_ever(scene.service)
        ),
        common,
    )


def test_the_kept_figures_are_of_faults_that_there_are() -> None:
    """And each fault that costs something would show."""
    records = kept()

    assert {record.what for record in records} <= {fault.what for fault in FAULTS.values()}
    assert table(records).count("\n") == len(records) + 1
