"""Puts the lines of a page in reading order: columns, rows, tables, headings and paragraphs, from boxes alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from worker.engines.base import Line

Box = tuple[float, float, float, float]  #: left, top, right, bottom, in pixels
Span = tuple[float, float]  #: left, right

#: All measures are in heights of a line, as printed pages are set.
JOIN_GAP = 0.8  #: Pieces of a row closer than this are one piece.
PARAGRAPH_GAP = 0.75  #: More white than this between two lines parts them.
TABLE_GAP = 1.8  #: More white than this ends a table.
HEADING, TITLE = 1.3, 1.75  #: heights of body lines
SAME_SIZE = 1.6  #: Letters that differ more do not stand in one row.
#: What makes columns of prose, and not of a table: lines of at least this many, words and letters a side.
COLUMN_LINES, COLUMN_WORDS, COLUMN_LETTERS = 3, 3.0, 14.0
#: A quarter, a year or the like names a column although there is a figure in it, when another stands beside it.
_PERIOD = re.compile(r"[A-Z]{1,3} ?\d{1,4}|(19|20)\d\d(/\d\d)?")


@dataclass(frozen=True, slots=True)
class Cell:
    """Lines that stand side by side as one piece, with their box on the page made level."""

    lines: tuple[Line, ...]
    left: float
    top: float
    right: float
    bottom: float

    @property
    def text(self) -> str:
        """What is printed here."""
        return " ".join(line.text for line in self.lines)

    @property
    def height(self) -> float:
        """How high the line is; never 0."""
        return max(self.bottom - self.top, 1.0)

    @property
    def middle(self) -> float:
        """Where the line runs."""
        return (self.top + self.bottom) / 2

    def overlaps(self, other: Cell) -> bool:
        """Tell whether one stands above the other."""
        return min(self.right, other.right) - max(self.left, other.left) > 0


Row = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that belong together: a table if it has `columns`, a heading if it has a `level`, else a paragraph."""

    rows: tuple[Row, ...]
    edge: float  #: how far right lines may run here
    columns: tuple[Span, ...] = ()
    level: int = 0

    @property
    def header(self) -> bool:
        """Whether the first row of the table names the columns: no figures in it but periods, and some below."""
        first, *others = self.grid()
        periods = [text for text in first if _PERIOD.fullmatch(text)]
        words = first if len(periods) < 2 else [text for text in first if text not in periods]
        return bool(words) and all(first) and not _has_digit(words) and any(_has_digit(row) for row in others)

    def grid(self) -> list[list[str]]:
        """The table's texts, row by row, "" where a cell is empty."""
        return [[_at(row, column) for column in self.columns] for row in self.rows]


@dataclass(frozen=True, slots=True)
class Page:
    """What is printed on a page, in reading order."""

    blocks: tuple[Block, ...] = ()

    @property
    def lines(self) -> tuple[Line, ...]:
        """Every line in reading order."""
        return tuple(line for b in self.blocks for row in b.rows for cell in row for line in cell.lines)

    @property
    def text(self) -> str:
        """One printed row a line, an empty line between blocks."""
        return "\n\n".join("\n".join(" ".join(c.text for c in row) for row in block.rows) for block in self.blocks)


def arrange(lines: Sequence[Line], level: Sequence[Box] | None = None) -> Page:
    """Put lines in reading order; `level` holds their boxes with the page's tilt taken out, as long as `lines`."""
    boxes = [line.box for line in lines] if level is None else level
    cells = [Cell((line,), *box) for line, box in zip(lines, boxes, strict=True)]
    body = _body_height(cells)
    return Page(tuple(block for region in _regions(cells) for block in _blocks(rows_of(region), body)))


def rows_of(cells: Sequence[Cell]) -> list[Row]:
    """Group cells into rows from top to bottom, each from left to right, pieces of one phrase joined."""
    found: list[list[Cell]] = []
    for cell in sorted(cells, key=lambda c: c.middle):
        row = next((row for row in reversed(found[-3:]) if all(_side_by_side(c, cell) for c in row)), None)
        if row is None:
            found.append(row := [])
        row.append(cell)
    found.sort(key=lambda row: fmean(cell.middle for cell in row))
    return [_joined(sorted(row, key=lambda c: c.left)) for row in found]


def _side_by_side(a: Cell, b: Cell) -> bool:
    low = min(a.height, b.height)
    if a.overlaps(b) or min(a.bottom, b.bottom) - max(a.top, b.top) < low / 2:
        return False
    return max(a.height, b.height) < SAME_SIZE * low


def _joined(row: list[Cell]) -> Row:
    joined = row[:1]
    for cell in row[1:]:
        last = joined[-1]
        if cell.left - last.right > JOIN_GAP * min(last.height, cell.height):
            joined.append(cell)
            continue
        top, bottom = min(last.top, cell.top), max(last.bottom, cell.bottom)
        joined[-1] = Cell(last.lines + cell.lines, last.left, top, cell.right, bottom)
    return tuple(joined)


def _regions(cells: list[Cell]) -> Iterator[list[Cell]]:
    """Cut where columns of prose stand side by side: what is above, the columns from the left, what is below."""
    cells = sorted(cells, key=lambda c: c.middle)
    found = _columns_of_prose(cells)
    if found is None:
        if cells:
            yield cells
        return
    first, last, gutter = found
    run = cells[first:last]
    yield from _regions(cells[:first])
    yield from _regions([c for c in run if c.right <= gutter])
    yield from _regions([c for c in run if c.right > gutter])
    yield from _regions(cells[last:])


def _columns_of_prose(cells: list[Cell]) -> tuple[int, int, float] | None:
    """Find the longest run of `cells` that a gutter parts: its first, one past its last, and the gutter's place."""
    best: tuple[int, int, float] | None = None
    for gutter in _gutters(cells):
        walls = [n for n, c in enumerate(cells) if c.left < gutter < c.right]
        for above, below in pairwise([-1, *walls, len(cells)]):
            run = cells[above + 1 : below]
            longer = best is None or len(run) > best[1] - best[0]
            if longer and _is_prose([c for c in run if c.right <= gutter], [c for c in run if c.left >= gutter]):
                best = above + 1, below, gutter
    return best


def _gutters(cells: list[Cell]) -> list[float]:
    """Places where a gutter may run: in the middle of the white between any two edges that face each other."""
    height = median(c.height for c in cells) if cells else 0.0
    rights = sorted({round(c.right) for c in cells})
    lefts = sorted({round(c.left) for c in cells})
    nearest = {left: max((r for r in rights if r < left), default=None) for left in lefts}
    return [(right + left) / 2 for left, right in nearest.items() if right is not None and left - right > height / 2]


def _is_prose(left: list[Cell], right: list[Cell]) -> bool:
    """Tell whether two sides are running text next to each other, and not the columns of a table."""
    if min(len(left), len(right)) < COLUMN_LINES:
        return False
    (_, top_a, _, bottom_a), (_, top_b, _, bottom_b) = _extent(left), _extent(right)
    beside = min(bottom_a, bottom_b) - max(top_a, top_b)
    return beside > 0.5 * min(bottom_a - top_a, bottom_b - top_b) and all(_reads_on(side) for side in (left, right))


def _reads_on(side: list[Cell]) -> bool:
    """Tell whether most rows are filled with words."""
    if fmean(len(c.text.split()) for c in side) < COLUMN_WORDS or fmean(len(c.text) for c in side) < COLUMN_LETTERS:
        return False
    left, _, right, _ = _extent(side)
    return median(sum(c.right - c.left for c in row) for row in rows_of(side)) > 0.6 * (right - left)


def _extent(cells: Sequence[Cell]) -> Box:
    return (
        min(c.left for c in cells),
        min(c.top for c in cells),
        max(c.right for c in cells),
        max(c.bottom for c in cells),
    )


def _body_height(cells: list[Cell]) -> float:
    """The height of most letters."""
    heights = sorted((c.height, max(len(c.text), 1)) for c in cells)
    half, seen = sum(weight for _, weight in heights) / 2, 0
    for height, weight in heights:
        seen += weight
        if seen >= half:
            return height
    return 0.0


def _blocks(rows: list[Row], body: float) -> Iterator[Block]:
    """Cut rows into tables, headings and paragraphs."""
    edge = max(cell.right for row in rows for cell in row)
    start = 0
    while start < len(rows):
        if (table := _table(rows[start:], edge)) is not None:
            yield table
            start += len(table.rows)
            continue
        level, end = _level(rows[start], body), start + 1
        while end < len(rows) and _goes_on(rows[end - 1], rows[end], body) and _table(rows[end:], edge) is None:
            end += 1
        yield Block(tuple(rows[start:end]), edge, level=level)
        start = end


def _goes_on(above: Row, below: Row, body: float) -> bool:
    """Tell whether the next row belongs to the same paragraph or heading."""
    return _level(above, body) == _level(below, body) and _gap(above, below) <= PARAGRAPH_GAP


def _gap(above: Row, below: Row) -> float:
    """The white between two rows, in heights of a line."""
    height = min(median(c.height for c in above), median(c.height for c in below))
    return (min(c.top for c in below) - max(c.bottom for c in above)) / height


def _level(row: Row, body: float) -> int:
    """The rank of a heading: 1 for a title, 2 below it, 0 for no heading."""
    if len(row) > 1 or len(row[0].text) > 90 or not any(letter.isalpha() for letter in row[0].text):
        return 0
    size = row[0].height / body
    return 1 if size >= TITLE else 2 if size >= HEADING else 0


def _table(rows: list[Row], edge: float) -> Block | None:
    """The table that begins with the first of `rows`: three rows of two columns or more, or two of three."""
    columns: tuple[Span, ...] = ()
    full = end = 0
    while end < len(rows) and (wider := _columns(rows[: end + 1])) and _fits(rows, end, columns, wider):
        columns = wider
        full += len(rows[end]) > 1
        end += 1
    if full < 2 or full * len(columns) < 6:
        return None
    return Block(tuple(rows[:end]), edge, columns)


def _fits(rows: list[Row], n: int, columns: tuple[Span, ...], wider: tuple[Span, ...]) -> bool:
    """Tell whether row `n` goes on with the table above it; a lone cell does when it stands close, in a column."""
    if n == 0:
        return len(rows[0]) > 1
    if len(rows[n]) > 1:
        return _gap(rows[n - 1], rows[n]) <= TABLE_GAP
    return _gap(rows[n - 1], rows[n]) <= PARAGRAPH_GAP and len(wider) == len(columns)


def _columns(rows: list[Row]) -> tuple[Span, ...]:
    """The columns that cells of several rows line up in; none when two cells of a row fall into one."""
    merged: list[Span] = []
    for left, right in sorted((c.left, c.right) for row in rows for c in row):
        if merged and left < merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], right)
        else:
            merged.append((left, right))
    clear = all(sum(1 for c in row if a <= c.left <= b) <= 1 for row in rows for a, b in merged)
    return tuple(merged) if clear and len(merged) > 1 else ()


def _at(row: Row, column: Span) -> str:
    return next((c.text for c in row if column[0] <= c.left <= column[1]), "")


def _has_digit(texts: Sequence[str]) -> bool:
    return any(letter.isdigit() for text in texts for letter in text)
