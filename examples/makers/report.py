"""The report: three pages of vector text, the second in two columns, the third a table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from fpdf import FPDF

from makers.sheet import font

TITLE = "The Orchard at Mill Lane"
SUBTITLE = "Report to the members for the year 2025"
INTRODUCTION = (
    "The orchard was planted in 1931 and given to the village in 1988. It covers a little over two hectares on the "
    "south side of Mill Lane, between the old railway bridge and the stream. Forty members look after it, and anyone "
    "may walk through it during the day.",
    "The year 2025 was a good one. A mild spring brought the blossom ten days early, and no late frost followed. June "
    "and July were dry, so the young trees had to be watered by hand every second evening. The rain came back in the "
    "last week of August, just in time for the later apples.",
    "In all we picked 4,310 kilograms of fruit, about a fifth more than the year before. Half of it went to the juice "
    "press, a third was sold at the gate, and the rest was shared among the members and the village school.",
    "This report tells in a few words what was done, what it cost, and what the committee would like to do next. The "
    "second page describes the work of the year. The third page lists the harvest tree by tree.",
)
COLUMNS = (
    (
        "Work on the trees",
        "Winter pruning began on 11 January and took five Saturdays. Eight members learned to prune from our oldest "
        "member, who has done it since the orchard was given to us.",
        "Two pear trees had canker and were felled in February. Three young plums, bought from a nursery in the next "
        "valley, now stand in their place. Each has a stake, a guard against rabbits, and a label with its name.",
        "The grass was cut twice with the scythe. The hay went to the farm across the lane.",
    ),
    (
        "Money and plans",
        "We took 2,960 pounds at the gate and spent 1,845 pounds, most of it on the new trees, tools and insurance. "
        "The difference has been put aside for the roof of the shed.",
        "For the coming year the committee proposes three things: to repair the roof before winter, to place two "
        "beehives near the stream, and to hold an open day on the last Sunday of September.",
        "Members who would like to help with the bees should write to the secretary by the end of March.",
    ),
)
TABLE_TITLE = "Harvest of 2025"
TABLE = (
    ("Fruit", "Trees", "Picked from", "Kilograms"),
    ("Cooking apple", "22", "14 September", "1,640"),
    ("Eating apple", "31", "2 September", "1,485"),
    ("Cider apple", "9", "5 October", "610"),
    ("Pear", "8", "28 August", "340"),
    ("Plum", "11", "9 August", "190"),
    ("Quince", "2", "12 October", "45"),
    ("All trees", "83", "", "4,310"),
)
NOTE = "Weights are rounded to five kilograms. Windfalls are not counted."

MARGIN, TOP, WIDTH = 22.0, 24.0, 166.0  #: mm
GAP = 9.0  #: mm between two columns


class Report:
    """A4 pages of text whose lines are remembered in reading order."""

    def __init__(self) -> None:
        self.pdf = FPDF(format="A4")
        self.pdf.set_creation_date(datetime(2026, 3, 2, tzinfo=UTC))
        self.pdf.set_title(TITLE)
        self.pdf.set_auto_page_break(False)
        for face in ("Regular", "Bold", "Italic"):
            self.pdf.add_font(face, fname=str(font(f"Serif-{face}", 10).path))
        self.pages: list[list[str]] = []

    def start_page(self) -> None:
        """Begin a page."""
        self.pdf.add_page()
        self.pages.append([])
        self.pdf.set_xy(MARGIN, TOP)

    def paragraph(self, text: str, width: float, face: str = "Regular", size: float = 13) -> None:
        """Print `text` at the cursor, broken into lines of at most `width` mm, and leave the cursor below it."""
        self.pdf.set_font(face, size=size)
        height = size * 0.52
        lines = self.pdf.multi_cell(width, height, text, align="L", dry_run=True, output="LINES")
        for line in cast(list[str], lines):
            self.pdf.cell(width, height, line, new_x="LEFT", new_y="NEXT")
            self.pages[-1].append(line)
        self.pdf.set_xy(self.pdf.x, self.pdf.y + 3.5)

    def row(self, cells: Sequence[str], widths: Sequence[float], face: str = "Regular") -> None:
        """Print one row of a table: the first cell to the left, the others to the right."""
        self.pdf.set_font(face, size=13)
        for n, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            self.pdf.cell(width, 11, cell, border="B", align="R" if n else "L")
        self.pdf.set_xy(MARGIN, self.pdf.y + 11)
        self.pages[-1].append(" ".join(cell for cell in cells if cell))


def print_introduction(report: Report) -> None:
    """Print the title page."""
    report.start_page()
    report.paragraph(TITLE, WIDTH, "Bold", 28)
    report.paragraph(SUBTITLE, WIDTH, "Italic", 17)
    for paragraph in INTRODUCTION:
        report.paragraph(paragraph, WIDTH, size=14)


def print_columns(report: Report) -> None:
    """Print the page with two columns."""
    report.start_page()
    width = (WIDTH - GAP) / 2
    for n, (heading, *paragraphs) in enumerate(COLUMNS):
        report.pdf.set_xy(MARGIN + n * (width + GAP), TOP)
        report.paragraph(heading, width, "Bold", 18)
        for paragraph in paragraphs:
            report.paragraph(paragraph, width)


def print_table(report: Report) -> None:
    """Print the page with the table."""
    report.start_page()
    report.paragraph(TABLE_TITLE, WIDTH, "Bold", 18)
    for n, cells in enumerate(TABLE):
        report.row(cells, (54, 26, 50, 36), "Bold" if n in (0, len(TABLE) - 1) else "Regular")
    report.pdf.set_xy(MARGIN, report.pdf.y + 5)
    report.paragraph(NOTE, WIDTH, "Italic", 12)


def make_report(path: Path) -> dict[str, Any]:
    """Write the PDF and return the truth about it."""
    report = Report()
    for print_page in (print_introduction, print_columns, print_table):
        print_page(report)
    report.pdf.output(str(path))
    return {"type": "ocr", "pages": [{"page": n, "lines": lines} for n, lines in enumerate(report.pages, 1)]}
