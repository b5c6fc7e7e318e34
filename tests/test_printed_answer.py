"""Questions answered from printed text: the value beside or under the key, or a plain refusal."""

from __future__ import annotations

from typing import Any

import pytest

from phi4.errors import CannotAnswer
from tests.test_layout import column, line, table
from worker.engines.filled_schema import fill
from worker.engines.layout import Page, arrange
from worker.engines.printed_answer import find_answer


def facts(*rows: tuple[str, str]) -> Page:
    """Keys on the left, values on the right."""
    return arrange(table([*rows]))


INVOICE = arrange(
    [
        *column(["Harbour Lane Stationers Ltd", "14 Harbour Lane", "hello@harbour.example"], top=40),
        line("Bill to", 100, 200),
        line("Tern & Plover Architects", 100, 234),
        line("Exeter EX2 4AN", 100, 268),
        *column(["Invoice number:", "Invoice date:", "Due date:", "Customer number:"], 600, 200),
        *column(["HL-2026-0417", "2 March 2026", "1 April 2026", "20518"], 900, 200),
        *table(
            [
                ("Description", "Quantity", "Unit price", "Amount"),
                ("Ring binder, blue", "40", "2.95", "118.00"),
                ("Desk lamp", "2", "38.75", "77.50"),
                ("", "", "Subtotal", "195.50"),
                ("", "", "VAT 20%", "39.10"),
                ("", "", "Total GBP", "1,234.60"),
            ],
            top=400,
        ),
        line("Sort code 00-12-34, account 12345678, reference HL-2026-0417", 100, 800),
        line("Tel: 555 0142 Web: harbour.example", 100, 900),
        line("Thank you, and see you again in our shop on Harbour Lane.", 100, 1000),
    ]
)
SALES = arrange(table([("Region", "Q1", "Q2", "Q3"), ("North", "120", "130", "125"), ("South", "90", "95", "101")]))
PRICES = arrange(table([("Item", "Text", "Price"), ("A1", "chair", "10.00"), ("B2", "desk", "20.50")]))
RECEIPT = facts(("Milk 2L", "1.90"), ("Bread", "2.35"), ("Coffee beans 500g", "8.49"))
PERSON = facts(("Date of birth:", "10 December 1815"), ("City:", "London"), ("Children:", "no"))
SIGN = arrange(
    [
        line("Riverside Library", 100, 40, height=60),
        line("Opening hours", 100, 140),
        *table([("Friday", "9:00 – 20:00"), ("Saturday", "10:00 – 16:00"), ("Sunday", "Closed")], top=200),
        line("Telephone 555 0199", 100, 400),
    ]
)


@pytest.mark.parametrize(
    ("page", "question", "answer"),
    [
        # beside its key, after a colon
        (INVOICE, "What is the invoice number?", "HL-2026-0417"),
        (INVOICE, "invoice no.", "HL-2026-0417"),
        (INVOICE, "Can you tell me the customer number on this invoice, please?", "20518"),
        (INVOICE, "What is the telephone number?", "555 0142"),
        # other words for the same
        (INVOICE, "What is the due date?", "1 April 2026"),
        (INVOICE, "When is it due?", "1 April 2026"),
        (INVOICE, "When is the payment due?", "1 April 2026"),
        (INVOICE, "When was the invoice issued?", "2 March 2026"),
        (INVOICE, "What is the total amount due?", "1,234.60"),
        (INVOICE, "How much do I have to pay?", "1,234.60"),
        (INVOICE, "total?", "1,234.60"),
        # in the next column
        (INVOICE, "How much is the VAT?", "39.10"),
        (SIGN, "What are the opening hours on Saturday?", "10:00 – 16:00"),
        # under its key
        (INVOICE, "Who is the invoice for?", "Tern & Plover Architects"),
        (INVOICE, "Bill to", "Tern & Plover Architects"),
        # in the same line without a colon
        (SIGN, "What is the phone number?", "555 0199"),
        (INVOICE, "What is the sort code?", "00-12-34"),
        (INVOICE, "What is the account number?", "12345678"),
        # where a row meets a column
        (INVOICE, "What is the unit price of the desk lamp?", "38.75"),
        (INVOICE, "How many ring binders?", "40"),
        (SALES, "What is Q3 for North?", "125"),
        (SALES, "Q2 South", "95"),
        (PRICES, "What is the price of B2?", "20.50"),
        # a person, a price
        (PERSON, "When was she born?", "10 December 1815"),
        (RECEIPT, "How much did the bread cost?", "2.35"),
        (RECEIPT, "How much does the milk cost?", "1.90"),
        # the text itself
        (arrange([line("NO ENTRY")]), "What does the sign say?", "NO ENTRY"),
        (arrange([line("NO ENTRY")]), "Read the text in this image.", "NO ENTRY"),
        (arrange([line("NO ENTRY")]), "What is written on the board?", "NO ENTRY"),
    ],
)
def test_the_value_of_the_asked_key_is_found(page: Page, question: str, answer: str) -> None:
    """A question that names a printed key gets the value that belongs to it."""
    assert find_answer(question, [page]) == answer


@pytest.mark.parametrize(
    ("page", "question"),
    [
        # a word of the key is another
        (INVOICE, "What is the order number?"),
        (INVOICE, "What is the customer's phone number?"),
        (INVOICE, "What is the customer name?"),
        (INVOICE, "What is the delivery date?"),
        (INVOICE, "When was the invoice paid?"),
        (INVOICE, "What is the fax number?"),
        (INVOICE, "What is the IBAN?"),
        (facts(("Contract", "C-17"), ("Gender", "female"), ("County", "Kent")), "What is the contact?"),
        (facts(("Contract", "C-17"), ("Gender", "female"), ("County", "Kent")), "Who is the sender?"),
        (facts(("Contract", "C-17"), ("Gender", "female"), ("County", "Kent")), "Which country?"),
        # the value does not look like what is asked
        (facts(("Due date:", "see below"), ("Total:", "on request"), ("Bill to:", "4711")), "When is it due?"),
        (facts(("Due date:", "see below"), ("Total:", "on request"), ("Bill to:", "4711")), "How much is the total?"),
        (facts(("Due date:", "see below"), ("Total:", "on request"), ("Bill to:", "4711")), "Who is it for?"),
        (INVOICE, "Who is the customer?"),
        # a code of another row or column
        (SALES, "What is the Q4 of North?"),
        (PRICES, "What is the price of C3?"),
        (RECEIPT, "How much did the butter cost?"),
        # several values
        (INVOICE, "What is the amount?"),
        (INVOICE, "How much is the desk lamp?"),
        (arrange(column(["Amount", "118.00", "77.50"])), "What is the amount?"),
        (facts(("Order date:", "1 May 2026"), ("Ship date:", "2 May 2026")), "What is the date?"),
        # a sentence that begins like a key
        (arrange([line("Total trees planted in 2026: see page 4")]), "What is the total?"),
        (arrange([line("Due diligence took 3 weeks")]), "When is it due?"),
        # not printed at all
        (INVOICE, "What colour is the logo?"),
        (INVOICE, "How many people are in the picture?"),
        (INVOICE, "What is the mood of this photo?"),
        (INVOICE, "Describe the image."),
        (INVOICE, "What is this?"),
        (INVOICE, "Where is the shop?"),
        (SIGN, "Where is the library?"),
        (SIGN, "What are the opening hours on Tuesday?"),
        (SIGN, "Is the door open?"),
        # nothing printed
        (Page(), "What is the total?"),
        (Page(), "What does the sign say?"),
    ],
)
def test_a_guess_is_never_given(page: Page, question: str) -> None:
    """A near miss, an open choice and a question about the picture are refused with a sentence."""
    with pytest.raises(CannotAnswer, match=r"^.{20,}\.$"):
        find_answer(question, [page])


def test_the_refusal_lists_the_values_it_could_not_choose_from() -> None:
    """Two dates for one question are named, so that the caller can ask for one."""
    page = facts(("Order date:", "1 May 2026"), ("Ship date:", "2 May 2026"), ("Clerk:", "Ruth"))

    with pytest.raises(CannotAnswer, match="1 May 2026; 2 May 2026"):
        find_answer("What is the date?", [page])


def test_a_key_may_stand_on_any_of_the_images() -> None:
    """All images are searched."""
    assert find_answer("What is the fax number?", [INVOICE, SIGN, facts(("Fax number:", "555 0177"))]) == "555 0177"


def test_images_that_contradict_each_other_are_refused() -> None:
    """The same key with two values on two images is no answer; with the same value it is."""
    one, other = arrange([line("Total: 10.00")]), arrange([line("Total: 12.00")])

    assert find_answer("What is the total?", [one, one]) == "10.00"
    with pytest.raises(CannotAnswer, match=r"10\.00; 12\.00"):
        find_answer("What is the total?", [one, other])


FORM = facts(
    ("Invoice number:", "HL-7"),
    ("Total:", "GBP 1,234.50"),
    ("Pages:", "12"),
    ("Paid:", "Yes"),
    ("Status:", "open"),
    ("Weight:", "1.204,75 kg"),
)


def schema(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    """A flat object schema."""
    return {"type": "object", "properties": properties, "required": required or []}


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("invoice_number", {"type": "string"}, "HL-7"),
        ("invoiceNumber", {"type": "string"}, "HL-7"),
        ("nr", {"type": "string", "title": "Invoice number"}, "HL-7"),
        ("total", {"type": "number"}, 1234.5),
        ("total", {"type": "string"}, "GBP 1,234.50"),
        ("pages", {"type": "integer"}, 12),
        ("paid", {"type": "boolean"}, True),
        ("status", {"type": "string", "enum": ["Open", "Closed"]}, "Open"),
        ("status", {"type": ["number", "string"]}, "open"),
        ("fax", {"type": ["string", "null"]}, None),
        # As pydantic writes `str | None`, `Literal["open", "closed"] | None` and `int | str`.
        ("fax", {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "Fax"}, None),
        ("total", {"anyOf": [{"type": "number"}, {"type": "null"}]}, 1234.5),
        ("status", {"anyOf": [{"type": "string", "enum": ["open", "closed"]}, {"type": "null"}]}, "open"),
        ("status", {"anyOf": [{"type": "string", "enum": ["sent"]}, {"type": "null"}]}, None),
        ("total", {"anyOf": [{"type": "integer"}, {"type": "string"}]}, "GBP 1,234.50"),
    ],
)
def test_a_schema_is_filled_with_printed_values_of_its_types(name: str, field: dict[str, Any], value: Any) -> None:
    """Each property is looked up by its name or title, and converted."""
    _, data = fill(schema(**{"pages": {"type": "integer"}} | {name: field}), [FORM])

    assert (data[name], type(data[name])) == (value, type(value))


def test_a_filled_schema_comes_as_text_and_as_data() -> None:
    """The text is the JSON of the data, without properties that are not printed."""
    text, data = fill(schema(["paid"], paid={"type": "boolean"}, fax={"type": "string"}), [FORM])

    assert (text, data) == ('{"paid": true}', {"paid": True})


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (schema(["fax"], fax={"type": "string"}), "`fax` cannot be filled"),
        (schema(["total"], total={"type": "integer"}), "not of type integer"),
        (schema(["pages"], pages={"type": "boolean"}), "not of type boolean"),
        (schema(["weight"], weight={"type": "number"}), "not of type number"),
        (schema(["status"], status={"type": "string", "enum": ["sent", "kept"]}), "not one of the allowed"),
        (schema(fax={"type": "string"}), "none of its properties is printed"),
        (schema(["other"], pages={"type": "integer"}), "`other` is not described"),
        (schema(items={"type": "array"}), "plain values only"),
        (schema(total={"type": "object", "properties": {}}), "plain values only"),
        (schema(total={"type": "number", "minimum": 5}), "cannot keep to `minimum`"),
        (schema(total={"$ref": "#/$defs/money"}), "cannot keep to `\\$ref`"),
        (schema(total={"anyOf": [{"$ref": "#/$defs/money"}, {"type": "null"}]}), "cannot keep to `\\$ref`"),
        (schema(total={"anyOf": [{"type": "number", "enum": [5]}, {"type": "string"}]}), "cannot keep to `anyOf`"),
        (schema(total={"anyOf": [{"type": "array"}, {"type": "null"}]}), "plain values only"),
        (schema() | {"properties": {}}, "lists its properties"),
        ({"type": "array", "items": {"type": "string"}}, "only a schema of type object"),
        ({"type": "string"}, "only a schema of type object"),
        (schema(total={"type": "number"}) | {"anyOf": []}, "does not know `anyOf`"),
    ],
)
def test_a_schema_that_cannot_be_filled_honestly_is_refused(wanted: dict[str, Any], message: str) -> None:
    """What is missing, of another type, or beyond flat objects is said."""
    with pytest.raises(CannotAnswer, match=message):
        fill(wanted, [FORM])


@pytest.mark.parametrize(
    ("printed", "number"),
    [
        ("900.00", 900.0),
        ("£1,234.50", 1234.5),
        ("1.234,50 €", 1234.5),
        ("1,640", 1640.0),
        ("12,5", 12.5),
        ("-7", -7.0),
        ("20%", 20.0),
        ("1 234 567", 1234567.0),
    ],
)
def test_figures_are_read_as_they_are_printed(printed: str, number: float) -> None:
    """Currency, sign and thousands marks of several countries are understood."""
    _, data = fill(schema(total={"type": "number"}), [arrange([line(f"Total: {printed}")])])

    assert data == {"total": number}
