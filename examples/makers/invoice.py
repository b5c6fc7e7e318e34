"""The scanned invoice: what it says, how it is laid out, and what the scanner did to it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from makers.sheet import FINE, Pixels, Sheet, cloud, font, grain

A4_150_DPI = (1240, 1754)
WHITE, INK = (255, 255, 255), (38, 40, 48)
SENDER = ("Harbour Lane Stationers Ltd", "14 Harbour Lane", "Falmouth TR11 3QX", "accounts@harbourlane.example")
CUSTOMER = ("Bill to", "Tern & Plover Architects", "Attn. Ms Ruth Okafor", "7 Granary Square", "Exeter EX2 4AN")
FACTS = (
    ("Invoice number:", "HL-2026-0417"),
    ("Invoice date:", "2 March 2026"),
    ("Due date:", "1 April 2026"),
    ("Customer number:", "20518"),
)
ITEMS = (
    ("Copier paper A4, box of five reams", 12, Decimal("21.50")),
    ("Ring binder, blue, 50 mm", 40, Decimal("2.95")),
    ("Toner cartridge, black", 3, Decimal("74.00")),
    ("Desk lamp with clamp", 2, Decimal("38.75")),
    ("Envelopes C5, pack of 500", 4, Decimal("16.20")),
    ("Delivery", 1, Decimal("9.70")),
)
SUBTOTAL = sum((count * price for _, count, price in ITEMS), Decimal())
VAT = (SUBTOTAL * Decimal("0.20")).quantize(Decimal("0.01"))
TOTALS = (("Subtotal", SUBTOTAL), ("VAT 20%", VAT), ("Total GBP", SUBTOTAL + VAT))
PAYMENT = (
    "Please pay by bank transfer within 30 days.",
    "Sort code 00-12-34, account 12345678, reference HL-2026-0417",
)


def draw_letterhead(sheet: Sheet) -> None:
    """Draw who sends the invoice, who gets it, and its number and dates."""
    sheet.draw.ellipse([v * FINE for v in (120, 112, 200, 192)], outline=INK, width=5 * FINE)
    sheet.draw.polygon([v * FINE for v in (138, 166, 182, 166, 160, 128)], fill=INK)
    sheet.text((1120, 176), "INVOICE", font("Sans-Bold", 58), right=True)
    for n, line in enumerate(SENDER):
        sheet.text((225, 134 + 32 * n), line, font("Sans-Bold" if n == 0 else "Sans-Regular", 28 if n == 0 else 23))
    for n, line in enumerate(CUSTOMER):
        sheet.text((120, 380 + 36 * n), line, font("Sans-Bold" if n == 0 else "Sans-Regular", 25))
    for n, (key, value) in enumerate(FACTS):
        sheet.text((690, 380 + 36 * n), key, font("Sans-Regular", 25))
        sheet.text((1120, 380 + 36 * n), value, font("Sans-Bold", 25), right=True)


def draw_row(sheet: Sheet, y: float, cells: Sequence[str], weight: str = "Regular") -> None:
    """Draw one row of the table of items: text on the left, three figures on the right."""
    sheet.text((120, y), cells[0], font(f"Sans-{weight}", 25))
    for x, cell in zip((740, 930, 1120), cells[1:], strict=True):
        sheet.text((x, y), cell, font(f"Sans-{weight}", 25), right=True)


def draw_items(sheet: Sheet) -> None:
    """Draw the table of items with its sums, and how to pay."""
    draw_row(sheet, 660, ("Description", "Quantity", "Unit price", "Amount"), "Bold")
    sheet.rule(120, 1120, 682, 2)
    for n, (name, count, price) in enumerate(ITEMS):
        draw_row(sheet, 726 + 54 * n, (name, str(count), f"{price:.2f}", f"{count * price:.2f}"))
        sheet.rule(120, 1120, 746 + 54 * n)
    for n, (name, amount) in enumerate(TOTALS):
        face = font("Sans-Bold" if n == len(TOTALS) - 1 else "Sans-Regular", 27)
        sheet.text((760, 1090 + 50 * n), name, face)
        sheet.text((1120, 1090 + 50 * n), f"{amount:.2f}", face, right=True)
    sheet.rule(760, 1120, 1156, 2)
    for n, line in enumerate(PAYMENT):
        sheet.text((120, 1330 + 40 * n), line, font("Sans-Regular", 25))
    sheet.rule(120, 1120, 1600)
    sheet.text((120, 1640), "Thank you for your order.", font("Sans-Italic", 23))


def scanned(flat: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Return `flat` as an office scanner gives it: a little askew, tinted, uneven, soft and noisy."""
    turned = flat.rotate(0.45, Image.Resampling.BICUBIC, fillcolor=WHITE).resize(size, Image.Resampling.LANCZOS)
    page: Pixels = np.asarray(turned.filter(ImageFilter.GaussianBlur(0.7)), dtype=np.float64)
    width, height = size
    edge = 1 - 0.16 * np.exp(-np.arange(width) / 14)[None, :, None]  # the shadow where the page leaves the glass
    fold = 1 - 0.035 * np.exp(-(((np.arange(height) - height * 0.5) / 3) ** 2))[:, None, None]
    page = page * (np.array([0.945, 0.925, 0.875]) + 0.012 * cloud(rng, size, 7)) * edge * fold
    page[rng.random((height, width)) < 4e-5] = 90  # dust
    return grain(rng, page + 8, 3.5)


def make_invoice(path: Path) -> dict[str, Any]:
    """Write the scanned invoice and return the truth about it."""
    sheet = Sheet(A4_150_DPI, WHITE, INK)
    draw_letterhead(sheet)
    draw_items(sheet)
    scan = scanned(sheet.image, sheet.size, np.random.default_rng(417))
    scan.save(path, quality=72, dpi=(150, 150))
    facts = dict(FACTS)
    questions = {
        "What is the invoice number?": facts["Invoice number:"],
        "What is the due date?": facts["Due date:"],
        "What is the total?": f"{TOTALS[-1][1]:.2f}",
    }
    return {"type": "ocr", "lines": sheet.lines(), "questions": questions}
