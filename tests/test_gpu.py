"""The cards of this machine as nvidia-smi tells them; a small program that prints its lines stands in for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.smi import H200, write_smi
from worker.engines.gpu import cards

OTHER = "1, GPU-0bb2, NVIDIA H200, 580.65.06, 143771, 5, Disabled"
Smi = Callable[..., None]


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smi:
    """Puts an nvidia-smi into PATH that prints these lines and exits so."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def install(*lines: str, code: int = 0) -> None:
        monkeypatch.setenv("PATH", write_smi(tmp_path, *lines, code=code))

    return install


def test_a_card_is_told_with_its_memory_in_bytes(smi: Smi) -> None:
    """nvidia-smi counts in MiB."""
    smi(H200)

    (card,) = cards()

    assert (card.index, card.uuid, card.name, card.driver) == (0, "GPU-0aa1", "NVIDIA H200", "580.65.06")
    assert (card.total, card.free) == (143_771 * 2**20, 143_158 * 2**20)
    assert str(card) == "GPU 0 (NVIDIA H200)"


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        (None, [0, 1]),
        ("0,1", [0, 1]),
        ("1, 0", [1, 0]),
        ("1", [1]),
        ("GPU-0b", [1]),
        ("GPU-0aa1,GPU-0bb2", [0, 1]),
        ("GPU-0", []),
        ("", []),
        ("-1", []),
        ("0,-1,1", [0]),
        ("MIG-0aa1", []),
    ],
)
def test_only_cards_that_the_process_may_use_count(
    smi: Smi, monkeypatch: pytest.MonkeyPatch, visible: str | None, indices: list[int]
) -> None:
    """CUDA_VISIBLE_DEVICES chooses and orders, by number or by the beginning of an id, and ends at what names none."""
    smi(H200, OTHER)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert [card.index for card in cards()] == indices


@pytest.mark.parametrize(
    "line",
    [
        "0, GPU-0aa1, NVIDIA GB10, 580.95.05, [N/A], [N/A], [N/A]",
        "0, GPU-0aa1, NVIDIA H200, 580.65.06, 143771, 143158, Enabled",
        "No devices were found",
        "",
    ],
)
def test_what_cannot_be_measured_is_left_out(smi: Smi, line: str) -> None:
    """Memory shared with the machine, cards cut by MIG, and words instead of cards."""
    smi(line)

    assert cards() == ()


def test_a_card_without_mig_is_measured(smi: Smi) -> None:
    """Consumer cards say that they have none."""
    smi("0, GPU-0aa1, NVIDIA GeForce RTX 4090, 580.65.06, 24564, 24080, [N/A]")

    assert [card.total for card in cards()] == [24_564 * 2**20]


def test_a_driver_that_does_not_answer_means_no_cards(smi: Smi) -> None:
    """nvidia-smi exits with an error where the driver is not loaded."""
    smi("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", code=9)

    assert cards() == ()


def test_without_the_program_there_are_no_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a driver is no error."""
    monkeypatch.setenv("PATH", str(tmp_path))

    assert cards() == ()
