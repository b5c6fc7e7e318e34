"""Answers a question from printed text alone: finds the key it asks about and gives the value beside or under it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from phi4.errors import CannotAnswer
from worker.engines.layout import Block, Cell, Page, Row
from worker.engines.question import Asked, Kind, Words, asked, key_words, same_word

#: A key must be told by at least this share of its words; the rest may stand on the page only.
MIN_SHARE = 0.5
#: A value under its key is at most this many line heights away.
MAX_DROP = 1.5
#: "Due date: 1 April", but neither "10:00" nor "https://".
_COLON = re.compile(r"^(?P<key>[^:]{0,60}[^\d\s:])\s*:(?!//)\s*(?P<value>.*)$")
_NEXT_KEY = re.compile(r"(?<=\S)\s+(?=[^\W\d][\w ]{0,24}:(?:\s|$))")
#: What may follow when a number is asked for and the key does not say so: "account 12345678".
_NUMBER = re.compile(r"(?=.*\d)[\w/-]{3,}")
_DATE = re.compile(
    r"\b\d{1,4}[./-]\d{1,2}[./-]\d{1,4}\b|\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b", re.IGNORECASE
)
_FIGURE = re.compile(r"[\W\d]*\d[\W\d]*")
#: A mark or a short code in capitals may stand before it: "GBP 900", "HL-2026".
_STARTS_WITH_FIGURE = re.compile(r"([A-Z]{1,4} |[A-Z]{0,4}\W{0,3})\d|[A-Z]+-\S*\d")
_LOOKS: dict[Kind, re.Pattern[str]] = {
    "any": re.compile(r"\w"),
    "name": re.compile(r"[^\W\d]{3}|[^\W\d]{2} [^\W\d]"),
    "date": _DATE,
    "figure": re.compile(r"\d"),
    "phone": re.compile(r"(\d\D{0,2}){5}"),
    "email": re.compile(r"\S@\S"),
}


@dataclass(frozen=True, slots=True)
class Found:
    """A key with its value, and what else on the page the key stands under."""

    key: str
    value: str
    context: Words = ()
    row: str = ""  #: the label of the table row, when the key names a column
    whole: bool = False  #: whether the question must tell every word of the key


def find_answer(question: str, pages: Sequence[Page]) -> str:
    """Answer from what is printed. Raises `CannotAnswer` when that does not hold the answer, or holds several."""
    if not any(page.blocks for page in pages):
        raise CannotAnswer("The cpu engine reads printed text only, and there is none here.")
    wanted = asked(question)
    if wanted.everything:
        return "\n\n".join(page.text for page in pages if page.blocks)
    if not wanted.words:
        raise CannotAnswer("The cpu engine answers by looking up a printed key; the question names none.")
    return look_up(wanted, pages)


def look_up(wanted: Asked, pages: Sequence[Page]) -> str:
    """Find the one value that belongs to what is asked. Raises `CannotAnswer`."""
    ranked = [(share, found) for page in pages for found in _printed(page) if (share := _share(wanted, found)) > 0]
    best = max((share for share, _ in ranked), default=0.0)
    values = dict.fromkeys(found.value for share, found in ranked if share == best)
    asks_for = " ".join(wanted.words)
    if not values:
        raise CannotAnswer(f"The cpu engine reads printed text only, and found no value for “{asks_for}” in it.")
    if len(values) > 1:
        several = "; ".join(list(values)[:5])
        raise CannotAnswer(f"Several printed values could be meant by “{asks_for}”: {several}.")
    return next(iter(values))


def _share(wanted: Asked, found: Found) -> float:
    """Say how well a key is told by the question, 0 when it is not what is asked.

    Every word of the question must be in the key or stand over it, and the key's main word must be in the question.
    """
    key, label = key_words(found.key), key_words(found.row)
    told = [w for w in key if _in(w, wanted.words)]
    named = [w for w in label if _in(w, wanted.words)]
    share = len(told) / len(key) if key else 0.0
    if share < (1.0 if found.whole else MIN_SHARE) or key[-1] not in told or bool(named) != bool(found.row):
        return 0.0
    if _missing(wanted, found, (*key, *label)) or not _LOOKS[wanted.kind].search(found.value):
        return 0.0
    return share + len(named) / max(len(label), 1)


def _missing(wanted: Asked, found: Found, printed: Words) -> list[str]:
    """The words of the question that nothing printed accounts for."""
    given = printed + found.context + wanted.loose
    if _NUMBER.fullmatch(found.value):
        given += ("number",)
    return [w for w in wanted.words if not _in(w, given)]


def _in(word: str, words: Sequence[str]) -> bool:
    return any(same_word(word, other) for other in words)


def _printed(page: Page) -> Iterator[Found]:
    """Give every key with its value that a page may hold."""
    context: Words = ()
    for n, block in enumerate(page.blocks):
        below = page.blocks[n + 1] if n + 1 < len(page.blocks) else None
        for row_n, row in enumerate(block.rows):
            for cell_n in range(len(row)):
                yield from _of_cell(block, row_n, cell_n, below, context)
        if block.columns and block.header:
            yield from _of_grid(block)
        context += tuple(chain.from_iterable(_caption(row) for row in block.rows))


def _caption(row: Row) -> Words:
    """The words of a short line that stands over others."""
    text = row[0].text
    short = len(row) == 1 and len(text.split()) <= 6 and not re.search(r"[\d:@]", text)
    return key_words(text) if short else ()


def _of_cell(block: Block, row_n: int, cell_n: int, below: Block | None, context: Words) -> Iterator[Found]:
    row = block.rows[row_n]
    cell, following = row[cell_n], row[cell_n + 1 :]
    pairs = list(_pairs(cell.text))
    yield from (Found(key, value, context) for key, value in pairs if value)
    if pairs and pairs[-1][1]:
        return
    key = pairs[-1][0] if pairs else cell.text
    names_column = bool(block.columns) and block.header and row_n == 0
    beside = "" if names_column else _beside(following, sure=bool(pairs))
    if beside:
        yield Found(key, beside, context)
    elif not names_column and (under := _under(cell, block, row_n, below)):
        yield Found(key, under, context, whole=True)
    if not following and not pairs:
        yield from (Found(key, value, context, whole=True) for key, value in _leading(cell.text))


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Give the keys before colons with what follows them, up to the next such key."""
    while found := _COLON.match(text):
        value, *rest = _NEXT_KEY.split(found["value"], maxsplit=1)
        yield found["key"], value
        text = rest[0] if rest else ""


def _leading(text: str) -> Iterator[tuple[str, str]]:
    """Give what may be keys at the start of each part of a line, with the figures after them: "Total GBP 900.00"."""
    for part in re.split(r"[,;] ", text):
        words = part.split()
        for n in range(1, min(len(words), 5)):
            rest = " ".join(words[n:])
            if words[n - 1][-1].isalpha() and len(words) - n <= 5 and _STARTS_WITH_FIGURE.match(rest):
                yield " ".join(words[:n]), rest.lstrip("-–=. ")


def _beside(following: Row, *, sure: bool) -> str:
    """The value right of a key: the one cell there, or, after a colon, all up to the next key."""
    values = []
    for cell in following:
        if _COLON.match(cell.text):
            break
        values.append(cell.text)
    return " ".join(values) if sure or len(values) == 1 else ""


def _under(cell: Cell, block: Block, row_n: int, below: Block | None) -> str:
    """The value under a key: the next line there, or a whole table."""
    if row_n + 1 < len(block.rows):
        if _drop(cell, block.rows[row_n + 1]) > MAX_DROP:
            return ""
        value, *more = [_next_line(cell, row) for row in block.rows[row_n + 1 : row_n + 3]]
        # Figures under figures are a column, and the first of them no better than the next.
        return "" if _FIGURE.fullmatch(value) and any(_FIGURE.fullmatch(text) for text in more) else value
    if below is None or _drop(cell, below.rows[0]) > MAX_DROP:
        return ""
    if below.columns:
        return "\n".join(" ".join(c.text for c in row) for row in below.rows)
    return _next_line(cell, below.rows[0])


def _next_line(cell: Cell, row: Row) -> str:
    under = [c for c in row if c.overlaps(cell)]
    return under[0].text if len(under) == 1 and not _COLON.match(under[0].text) else ""


def _drop(cell: Cell, row: Row) -> float:
    return (min(c.top for c in row) - cell.bottom) / cell.height


def _of_grid(block: Block) -> Iterator[Found]:
    """Give each figure of a table with the names of its column and row, and a column's only value without."""
    head, *rows = block.grid()
    for row in rows:
        label, *values = row
        yield from (
            Found(key, value, row=label) for key, value in zip(head[1:], values, strict=True) if label and value
        )
    if len(rows) == 1:
        yield from (Found(key, value) for key, value in zip(head, rows[0], strict=True) if value)
