"""One short round of every fault that `make faults` runs, on a service of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.faults.kept import kept, table
from bench.faults.listed import FAULTS
from bench.faults.run import run

#: Too long for every run of the tests; test_recovery, test_hanging_part and test_vllm_worker show what they show.
LONG = {"poison", "hang", "engine", "soak"}


@pytest.mark.parametrize("name", sorted(FAULTS.keys() - LONG))
def test_a_fault_costs_no_job(name: str) -> None:
    """Nothing that was accepted is lost, done twice, or left without an end."""
    said: list[str] = []
    record = run(FAULTS[name], 1, short=True, say=said.append)

    assert (record.lost, record.doubled, record.stuck) == (0, 0, 0), said


def test_load_leaves_nothing_behind() -> None:
    """A few seconds of what `make faults` does for two hours: every key has a time to live, every blob a job."""
    soak = replace(FAULTS["soak"], strike=lambda scene: scene.wait(5, 5))
    record = run(soak, 1, short=True, say=lambda _: None)

    assert (record.lost, record.doubled, record.stuck) == (0, 0, 0)


def test_the_kept_figures_are_of_faults_that_there_are() -> None:
    """And each fault that costs something would show."""
    records = kept()

    assert {record.what for record in records} <= {fault.what for fault in FAULTS.values()}
    assert table(records).count("\n") == len(records) + 1
