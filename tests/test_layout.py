"""Reading order and Markdown, from lines and boxes alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engines.base import Line
from worker.engines.layout import Page, arrange
from worker.engines.markdown import to_markdown

HIGH = 30.0  #: pixels a line
LETTER = 12.0  #: pixels a letter


def line(text: str, left: float = 100, top: float = 100, height: float = HIGH) -> Line:
    """A printed line as wide as its letters."""
    return Line(text, (left, top, left + len(text) * LETTER * height / HIGH, top + height), 0.99)


def column(texts: list[str], left: float = 100, top: float = 100, pitch: float = 34) -> list[Line]:
    """Lines under each other."""
    return [line(text, left, top + n * pitch) for n, text in enumerate(texts)]


def shuffled(lines: list[Line]) -> list[Line]:
    """The same lines in an order that tells nothing."""
    return random.Random(4).sample(lines, len(lines))


def texts(page: Page) -> list[str]:
    """What is read, in order."""
    return [line.text for line in page.lines]


LEFT = ["the river ran slowly past", "the old mill and the bridge", "where nobody lived any more"]
RIGHT = ["in spring the water rose so", "high that boats were tied to", "the windows of the upper floor"]


def test_an_empty_page_has_no_text() -> None:
    """No lines give "" in both formats."""
    page = arrange([])

    assert (page.text, to_markdown(page), page.lines) == ("", "", ())


def test_words_of_one_printed_line_are_joined_from_the_left() -> None:
    """Pieces on one height become one line even when they were found from the right."""
    page = arrange([line("world", 180, 103), line("hello", 110, 100)])

    assert page.text == "hello world"


def test_rows_go_from_top_to_bottom() -> None:
    """The order in which lines were found does not matter."""
    rows = column(["first line", "second line", "third line", "fourth line"])

    assert texts(arrange(shuffled(rows))) == ["first line", "second line", "third line", "fourth line"]


def test_two_columns_of_prose_are_read_one_after_the_other() -> None:
    """A gutter between running text parts it, though lines stand on the same height."""
    lines = column(LEFT) + column(RIGHT, left=500)

    assert texts(arrange(shuffled(lines))) == LEFT + RIGHT


def test_a_full_width_heading_stays_above_and_a_footer_below_two_columns() -> None:
    """What crosses the gutter is read where it stands."""
    head, foot = (
        "a heading that runs across the whole page and both columns",
        "printed by the river press for its readers",
    )
    lines = [line(head, 100, 40), *column(LEFT), *column(RIGHT, left=500), line(foot, 200, 220)]

    assert texts(arrange(shuffled(lines))) == [head, *LEFT, *RIGHT, foot]


def test_three_columns_of_prose_are_read_from_the_left() -> None:
    """Columns are parted again."""
    third = ["and in the autumn the fishers", "came back with empty baskets", "and told long stories of it"]
    lines = column(LEFT) + column(RIGHT, left=500) + column(third, left=920)

    assert texts(arrange(shuffled(lines))) == LEFT + RIGHT + third


def test_a_tilted_page_is_read_by_its_levelled_boxes() -> None:
    """The boxes that order the lines may differ from the boxes that are reported."""
    tilted = [line("Friday", 100, 200), line("open", 700, 160), line("Saturday", 100, 240), line("closed", 700, 200)]
    level = [(100.0, 200.0, 172.0, 230.0), (700.0, 200.0, 748.0, 230.0)]
    level += [(100.0, 240.0, 196.0, 270.0), (700.0, 240.0, 772.0, 270.0)]

    page = arrange(tilted, level)

    assert page.text == "Friday open\nSaturday closed"
    assert page.lines[1].box == tilted[1].box


ITEMS = [("Item", "Count", "Price"), ("Paper", "12", "21.50"), ("Ring | binder", "40", "2.95"), ("Lamp", "2", "38.75")]


def table(rows: Sequence[tuple[str, ...]], top: float = 100) -> list[Line]:
    """Cells whose columns line up."""
    return [line(text, 100 + 300 * n, top + 40 * r) for r, row in enumerate(rows) for n, text in enumerate(row) if text]


def test_rows_that_line_up_become_a_table_with_its_head() -> None:
    """Invoice items are a Markdown table; a | inside a cell is escaped."""
    expected = (
        "| Item | Count | Price |\n| --- | --- | --- |\n| Paper | 12 | 21.50 |\n"
        "| Ring \\| binder | 40 | 2.95 |\n| Lamp | 2 | 38.75 |"
    )

    assert to_markdown(arrange(shuffled(table(ITEMS)))) == expected


def test_an_empty_cell_stays_empty() -> None:
    """A value keeps its column when its neighbour is missing."""
    markdown = to_markdown(arrange(table([*ITEMS, ("", "Sum", "63.20")])))

    assert markdown.endswith("|  | Sum | 63.20 |")


def test_keys_and_values_become_a_table_without_a_head() -> None:
    """When figures stand in the first row, it is not taken for the names of columns."""
    markdown = to_markdown(arrange(table([("Monday", "9:00"), ("Friday", "10:00"), ("Sunday", "closed")])))

    assert markdown.startswith("|  |  |\n| --- | --- |\n| Monday | 9:00 |")


@pytest.mark.parametrize(
    ("first", "names"),
    [
        (("Region", "Q1", "Q2"), True),
        (("Revenue", "2025", "2026"), True),
        (("Room", "A12", "open"), False),
        (("2024", "2025", "2026"), False),
        (("Order", "PX-44", "PX-45"), False),
    ],
)
def test_quarters_and_years_name_columns(first: tuple[str, ...], names: bool) -> None:
    """Two of them beside a word are a head; a code alone, or nothing else, is not."""
    markdown = to_markdown(arrange(table([first, ("North", "120", "130"), ("South", "90", "95")])))

    assert markdown.startswith(f"| {' | '.join(first)} |") == names


def test_two_rows_of_two_cells_are_no_table() -> None:
    """So little may line up by chance."""
    assert to_markdown(arrange(table([("Name", "Ruth"), ("Town", "Exeter")]))) == "Name Ruth  \nTown Exeter"


def test_lines_that_the_paper_broke_are_joined_and_short_ones_kept() -> None:
    """Prose flows; an address keeps its lines; more white parts paragraphs."""
    prose = [
        "The orchard was planted a hundred years ago and it",
        "covers more than two hectares of good land beside",
        "the stream.",
    ]
    address = ["Ruth Okafor", "7 Granary Square", "Exeter"]

    markdown = to_markdown(arrange(column(prose) + column(address, top=300)))

    assert markdown == " ".join(prose) + "\n\n" + "  \n".join(address)


def test_text_keeps_every_printed_line() -> None:
    """The plain format joins nothing but the pieces of a row."""
    page = arrange(column(["one line", "another line"]) + column(["far below"], top=400))

    assert page.text == "one line\nanother line\n\nfar below"


def test_only_clearly_larger_letters_make_a_heading() -> None:
    """Twice the size is a title, half more a heading, a little more is nothing."""
    body = column(["words of the body that are many and of equal height", "and a second line of them"], top=400)
    lines = [line("Title", top=20, height=60), line("Heading", top=150, height=42), line("Bold", top=300, height=34)]

    markdown = to_markdown(arrange(lines + body)).split("\n\n")

    assert markdown[:3] == ["# Title", "## Heading", "Bold"]


@pytest.mark.parametrize(
    ("printed", "written"),
    [
        ("# 4 of 7", "\\# 4 of 7"),
        ("#hashtag", "#hashtag"),
        ("> 18 years", "\\> 18 years"),
        ("-----", "\\-----"),
        ("- a list stays a list", "- a list stays a list"),
        ("5 * 3 = 15", "5 * 3 = 15"),
        ("*not so*", "\\*not so\\*"),
        ("a_b@example.org", "a_b@example.org"),
        ("__init__", "\\_\\_init\\_\\_"),
        ("a < b <script>", "a < b \\<script>"),
        ("C:\\new `code`", "C:\\\\new \\`code\\`"),
        ("a | b", "a | b"),
    ],
)
def test_signs_that_markdown_would_take_are_escaped(printed: str, written: str) -> None:
    """What is printed is what a reader of the Markdown sees."""
    assert to_markdown(arrange([line(printed)])) == written


@given(
    st.lists(
        st.builds(
            line,
            st.text("abc 12|#:", min_size=1, max_size=12),
            st.floats(0, 900),
            st.floats(0, 1500),
            st.sampled_from([12.0, 30.0, 70.0]),
        ),
        max_size=40,
    )
)
def test_every_line_is_read_exactly_once(lines: list[Line]) -> None:
    """Wherever lines stand, none is lost or doubled, and Markdown can be written."""
    page = arrange(lines)
    to_markdown(page)

    assert sorted(page.lines, key=repr) == sorted(lines, key=repr)
