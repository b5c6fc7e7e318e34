"""Fills a flat JSON Schema with values printed on pages, each found by its property's name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from phi4.errors import CannotAnswer
from worker.engines.layout import Page
from worker.engines.printed_answer import look_up
from worker.engines.question import asked

_OBJECT_WORDS = {"$schema", "$id", "type", "properties", "required", "additionalProperties", "title", "description"}
_FIELD_WORDS = {"type", "title", "description", "enum", "default", "examples"}
_TYPES = {"string", "number", "integer", "boolean", "null"}
_YES, _NO = {"yes", "true", "y", "on", "✓", "☑", "x"}, {"no", "false", "n", "off", "none", "☐"}
_MONEY = re.compile(r"^\s*(?:[A-Z]{3}|[$€£¥₹])?\s*([-+−]?[\d.,' \u00a0]*\d)\s*(?:[A-Z]{3}|[$€£¥₹]|%)?\s*$")


class _NotSo(Exception):
    """The printed value is not of the type that the schema wants."""


def fill(schema: Mapping[str, Any], pages: Sequence[Page]) -> tuple[str, dict[str, Any]]:
    """Give the filled object as JSON text and as data.

    Properties that are not printed are left out, or null where the schema allows null. Raises `CannotAnswer` for
    other schemas than a flat object of plain values, for a required property that is not printed or not of its type,
    and when nothing was found.
    """
    fields = _fields(schema)
    data: dict[str, Any] = {}
    for name, field in fields.items():
        try:
            data[name] = _value(name, field, pages)
        except (CannotAnswer, _NotSo) as error:
            if name in schema.get("required", ()) and "null" not in _types(field):
                raise CannotAnswer(f"The required property `{name}` cannot be filled: {error}") from error
            if "null" in _types(field):
                data[name] = None
    if all(value is None for value in data.values()):
        raise CannotAnswer("The cpu engine fills a schema from printed keys, and none of its properties is printed.")
    return json.dumps(data, ensure_ascii=False), data


def check(schema: Mapping[str, Any]) -> None:
    """Raise `CannotAnswer` for a schema that no page could fill."""
    _fields(schema)


def _fields(schema: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """The properties of a schema this engine can fill. Raises `CannotAnswer` naming what it cannot."""
    if schema.get("type") != "object" or not isinstance(schema.get("properties"), dict) or not schema["properties"]:
        raise CannotAnswer("The cpu engine fills only a schema of type object that lists its properties.")
    if strange := set(schema) - _OBJECT_WORDS:
        raise CannotAnswer(f"The cpu engine does not know `{min(strange)}` in a response schema.")
    fields: dict[str, Mapping[str, Any]] = {name: _merged(field) for name, field in schema["properties"].items()}
    for name, field in fields.items():
        if not isinstance(field, dict) or not _types(field) or not set(_types(field)) <= _TYPES:
            raise CannotAnswer(f"The cpu engine fills plain values only, and `{name}` is none.")
        if strange := set(field) - _FIELD_WORDS:
            raise CannotAnswer(f"The cpu engine cannot keep to `{min(strange)}` of the property `{name}`.")
    if missing := set(schema.get("required", ())) - set(fields):
        raise CannotAnswer(f"The required property `{min(missing)}` is not described in the schema.")
    return fields


def _merged(field: Any) -> Any:
    """Write a choice between plain types, as pydantic writes `str | None`, as one field of these types."""
    choices = field.get("anyOf") if isinstance(field, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        return field
    others = [choice for choice in choices if choice != {"type": "null"}]
    if len(others) > 1 and any(set(choice) != {"type"} for choice in others):
        return field
    words = {word: value for one in (field, *others) for word, value in one.items() if word != "anyOf"}
    return words | {"type": [kind for choice in choices for kind in _types(choice)]}


def _types(field: Mapping[str, Any]) -> Sequence[str]:
    kind = field.get("type", "string")
    return [kind] if isinstance(kind, str) else kind if isinstance(kind, list) else []


def _value(name: str, field: Mapping[str, Any], pages: Sequence[Page]) -> Any:
    """Look a property up by its name, then by its title, and convert what is printed."""
    names = [re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name), field.get("title", "")]
    problem: Exception = CannotAnswer(f"`{name}` names no key.")
    for wanted in (asked(str(label)) for label in names if label):
        if wanted.words:
            try:
                return _allowed(_converted(look_up(wanted, pages), _types(field)), field)
            except (CannotAnswer, _NotSo) as error:
                problem = error
    raise problem


def _converted(text: str, types: Sequence[str]) -> Any:
    """Read the text as the first of the types that it fits."""
    for kind in types:
        try:
            return _CONVERT[kind](text)
        except _NotSo:
            continue
    raise _NotSo(f"“{text}” is printed, which is not of type {' or '.join(types)}.")


def _allowed(value: Any, field: Mapping[str, Any]) -> Any:
    choices = field.get("enum")
    if choices is None:
        return value
    for choice in choices:
        if choice == value or (isinstance(choice, str) and choice.casefold() == str(value).casefold()):
            return choice
    raise _NotSo(f"“{value}” is printed, which is not one of the allowed values.")


def _number(text: str) -> Decimal:
    """Read a figure as it is printed, with its currency, its sign and marks between thousands."""
    found = _MONEY.match(text)
    if not found:
        raise _NotSo
    digits = re.sub(r"[' \u00a0]", "", found[1]).replace("−", "-")
    comma, dot = digits.rfind(","), digits.rfind(".")
    if comma > dot and (dot >= 0 or not re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+", digits)):
        digits = digits.replace(".", "").replace(",", ".")
    try:
        return Decimal(digits.replace(",", ""))
    except InvalidOperation:
        raise _NotSo from None


def _integer(text: str) -> int:
    number = _number(text)
    if number != number.to_integral_value():
        raise _NotSo
    return int(number)


def _boolean(text: str) -> bool:
    word = text.strip().casefold().rstrip(".")
    if word not in _YES | _NO:
        raise _NotSo
    return word in _YES


def _null(text: str) -> None:
    raise _NotSo


_CONVERT = {
    "string": lambda text: text,
    "number": lambda text: float(_number(text)),
    "integer": _integer,
    "boolean": _boolean,
    "null": _null,
}
