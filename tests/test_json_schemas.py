"""Which JSON Schemas are taken with a job: patterns as Python knows them, names of any form, and nothing too large."""

from __future__ import annotations

from typing import Any

import pytest

from api.body import check_schema
from phi4.errors import InvalidRequest


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"a": {"type": ["string", "null"]}}, "required": ["a"]},
        {"pattern": "^[A-Z]{3}$"},
        {"pattern": "(?i)^abc$"},
        {"pattern": r"(?P<a>b)\Z"},
        {"$id": "My Schema", "$defs": {"a": {}}, "$ref": "#/$defs/a"},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}},
        {"allOf": [{}] * 15_000},
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_schemas_that_are_taken(schema: dict[str, Any]) -> None:
    """What an engine makes of one is its own business."""
    check_schema(schema, "schema")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "nonsense"}, r"schema: is no JSON Schema at \$\.type"),
        ({"properties": {"a": {"items": [{}]}}}, r"at \$\.properties\.a\.items"),
        ({"anyOf": [{}, {"minimum": "x"}]}, r"at \$\.anyOf\[1\]\.minimum"),
        ({"pattern": "("}, r"at \$\.pattern"),
        ({"description": "x" * 65_536}, "more than 64 kB"),
    ],
)
def test_schemas_that_are_not(schema: dict[str, Any], message: str) -> None:
    """The place is told."""
    with pytest.raises(InvalidRequest, match=message):
        check_schema(schema, "schema")
