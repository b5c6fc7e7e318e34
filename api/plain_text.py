"""Writes Markdown as plain text: what a page says, without the marks."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode

#: HTML is left as it is written, but for line breaks. The rules that are off would leave the marks of indented text,
#: and take away what was printed: a line of "=" below another, "[1](2)", lines such as "[1]: Smith".
_PARSER = (
    MarkdownIt("js-default", {"html": True})
    .enable("strikethrough")
    .disable(["html_block", "code", "lheading", "reference", "link", "image"])
)
_BREAK = re.compile(r"<br ?/?>", re.IGNORECASE)
#: Pictures, and links to somewhere. The parser's own rule takes seconds for a page of brackets.
_LINK = re.compile(
    r"(?:!\[(?P<picture>[^\[\]]*)\]\(|\[(?P<link>[^\[\]]*)\]\((?:https?://|mailto:))"
    r"[^()]*(?:\([^()]*\)[^()]*)?\)"
)


def plain_text(markdown: str) -> str:
    """Give the text: a line for each row of a table with tabs between the cells, lists with their signs."""
    tokens = _PARSER.parse(markdown)
    for token in tokens:
        if token.type == "inline":  # flat, as emphasis may be nested deeper than Python's stack
            token.content, token.children = _inline(token.children or []), None
    return _blocks(SyntaxTreeNode(tokens), "\n\n")


def _blocks(node: SyntaxTreeNode, between: str) -> str:
    return between.join(filter(None, map(_block, node.children)))


def _block(node: SyntaxTreeNode) -> str:
    match node.type:
        case "paragraph" | "heading":
            return node.children[0].content
        case "table":
            rows = [_row(row) for part in node.children for row in part.children]
            return "\n".join(filter(None, rows))
        case "bullet_list" | "ordered_list":
            return "\n".join(map(_item, node.children))
        case "fence":
            return node.content.rstrip("\n")
        case "hr":
            return ""
        case _:
            return _blocks(node, "\n\n")


def _row(row: SyntaxTreeNode) -> str:
    return "\t".join(cell.children[0].content.replace("\n", " ") for cell in row.children).rstrip()


def _item(item: SyntaxTreeNode) -> str:
    sign = f"{item.info}{item.markup} "
    return (sign + textwrap.indent(_blocks(item, "\n"), " " * len(sign)).lstrip()).rstrip()


def _inline(tokens: Sequence[Token]) -> str:
    return _LINK.sub(lambda found: found["picture"] or found["link"] or "", "".join(map(_piece, tokens)))


def _piece(token: Token) -> str:
    """Give the text of a token; those that begin and end emphasis have none."""
    if token.type in ("softbreak", "hardbreak") or (token.type == "html_inline" and _BREAK.fullmatch(token.content)):
        return "\n"
    return token.content
