"""Writes a page that was put in reading order as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from worker.engines.layout import Block, Page, Row

#: Shorter lines end where their writer ended them: addresses, lists, signs.
RUNNING_LETTERS = 30
#: Signs that Markdown or HTML would take for its own inside a line.
_INLINE = re.compile(r"[`\\]|<(?=[A-Za-z/!?])|\*(?=\S)|(?<=\S)\*|(?<![^\W_])_|_(?![^\W_])|~~")
#: The same at the start of a line: headings, quotes, rules.
_LEADING = re.compile(r"^(#{1,6}(?=\s|$)|>|(?=[-=_]{2,}\s*$))")


def to_markdown(page: Page) -> str:
    """Give headings, paragraphs and tables, an empty line between them."""
    return "\n\n".join(_block(block) for block in page.blocks)


def _block(block: Block) -> str:
    if block.columns:
        return _table(block)
    if block.level:
        return "#" * block.level + " " + " ".join(_inline(_text(row)) for row in block.rows)
    return _paragraph(block)


def _paragraph(block: Block) -> str:
    """Join lines that only the paper's width broke; keep the breaks that were meant."""
    parts = [_line(_text(block.rows[0]))]
    for above, below in pairwise(block.rows):
        if not _runs_on(above, below, block.edge):
            parts += ["  \n", _line(_text(below))]
        elif re.search(r"[a-z]-$", parts[-1]) and _text(below)[:1].islower():
            parts += [_inline(_text(below))]
        else:
            parts += [" ", _inline(_text(below))]
    return "".join(parts)


def _runs_on(above: Row, below: Row, edge: float) -> bool:
    """Tell whether the next line's first word would not have fitted, so that the line had to end."""
    last, first = above[-1], below[0]
    if len(above) > 1 or len(below) > 1 or len(last.text) < RUNNING_LETTERS:
        return False
    letter = (first.right - first.left) / max(len(first.text), 1)
    word = len(first.text.split(" ", 1)[0]) + 1
    return last.right + word * letter > edge - letter


def _table(block: Block) -> str:
    grid = block.grid()
    head, rows = (grid[0], grid[1:]) if block.header else ([""] * len(block.columns), grid)
    return "\n".join([_table_row(head), "|" + " --- |" * len(head), *(_table_row(row) for row in rows)])


def _table_row(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {_inline(cell).replace('|', chr(92) + '|')} " if cell else "  " for cell in cells) + "|"


def _text(row: Row) -> str:
    return " ".join(cell.text for cell in row)


def _inline(text: str) -> str:
    return _INLINE.sub(lambda found: "\\" + found[0], text)


def _line(text: str) -> str:
    return _LEADING.sub(r"\\\1", _inline(text))
