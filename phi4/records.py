"""Reads records that another version of the service may have written: while it is upgraded, both are at work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def read(kind: type[T], record: Mapping[str, Any]) -> T:
    """Make a `kind` of what is known here; what a newer version added is left out, what an older lacks is default."""
    known = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in record.items() if name in known})
