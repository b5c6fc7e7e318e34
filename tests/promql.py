"""What a PromQL expression reads."""

from __future__ import annotations

from typing import Any

import promql_parser


def figures(expression: str) -> set[str]:
    """The figures that an expression reads. Raises `ValueError` when it is not PromQL."""
    found: set[str] = set()

    def note(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.add(node.name)
        elif isinstance(node, promql_parser.MatrixSelector):
            found.add(node.vector_selector.name)
        return True

    promql_parser.walk(promql_parser.parse(expression), note)
    return found
