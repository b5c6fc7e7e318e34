"""What a client was told of a text that is being written, which nothing can take back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.openai.chat_stream import ToldText


@pytest.mark.parametrize(
    ("heard", "told", "whole", "rest"),
    [
        ([(0, "one "), (4, "two")], ["one", " two"], "one two", ""),
        ([(0, " one"), (4, " \n")], ["one", ""], "one", ""),
        ([(0, "é"), (2, "a")], ["é", "a"], "éa", ""),
        ([(0, "one"), (7, "three")], ["one", ""], "one two three", " two three"),
        ([(0, "one"), (0, "one two")], ["one", " two"], "one two", ""),
        ([(0, "one"), (0, "o"), (1, "ne two")], ["one", "", " two"], "one two", ""),
        ([(0, "one"), (0, "eins")], ["one", ""], "eins", None),
        ([], [], "all of it", "all of it"),
    ],
    ids=["pieces", "white space", "bytes", "a gap", "anew", "anew in pieces", "anew, otherwise", "nothing"],
)
def test_text_only_grows(heard: list[tuple[int, str]], told: list[str], whole: str, rest: str | None) -> None:
    """Missed pieces come at the end, a new beginning is told as far as it goes on, and another text never."""
    text = ToldText()

    assert [text.hear(offset, piece) for offset, piece in heard] == told
    assert text.rest(whole) == rest


@settings(max_examples=50)
@given(st.lists(st.text("aé \n", max_size=3), max_size=6), st.integers(0, 5))
def test_whatever_is_missed_the_client_ends_with_the_whole_text(pieces: list[str], missed: int) -> None:
    """All that was told, and the rest, are the text without the white space around it."""
    text, told, offset = ToldText(), "", 0
    for number, piece in enumerate(pieces):
        if number != missed or offset == 0:
            told += text.hear(offset, piece)
        offset += len(piece.encode())

    assert told + (text.rest("".join(pieces).strip()) or "") == "".join(pieces).strip()
