"""Turns a question, or a key printed on a page, into the few words that tell it from others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from rapidfuzz.distance import OSA

Kind = Literal["any", "name", "date", "figure", "phone", "email"]
Words = tuple[str, ...]

#: What people and papers call the same thing; applied one after the other.
_SAME = [
    (r"\be mails?( address(es)?)?\b|\bemail address\b", " email "),
    (r"\b(tele)?phone( number)?\b|\btel( number)?\b", " phone "),
    (r"\b(web site|url|web address|home ?page)\b", " website "),
    (r"\bwho(m)? (is|was) (the |this |it )(invoice |bill |order )?(for|to|addressed to)\b", " recipient "),
    (r"\bwho (is|was) (billed|invoiced|charged)\b", " recipient "),
    (r"\b(bill(ed)?|invoice(d)?|sold|issued|addressed) to\b|\b(bill|invoice) recipient\b", " recipient "),
    (r"\bhow (much|many) .*\b(due|owe[ds]?|pay|payable|outstanding)\b", " total "),
    (r"\b(total )?(amount|balance) (due|payable|outstanding|owed)\b|\btotal (due|payable|to pay)\b", " total "),
    (r"\b(grand|invoice|order) total\b|\btotal (amount|sum|price|cost|of the)\b|\bamount to pay\b", " total "),
    (r"\b(payment )?due (date|on|by)\b|\bdate due\b|\bpayment due\b|\bpay(able|ment)? by\b", " duedate "),
    (r"\b(is|it|this|invoice|payment|bill) due\b|^due$", " duedate "),
    (r"\b(date of issue|issue date|issued on|date of invoice|invoice dated?)\b", " invoice date "),
    (r"\bwhen (is|was|were) (the|this|that) (invoice|bill) (issued|made|written|dated|sent)\b", " when invoice date "),
    (r"\bdate of birth\b|\bbirth ?da(y|te)\b|\bborn\b", " birthdate "),
    (r"\b(nr|num|numbers?|#)(?=\s|$)|\bno(?=\s*$|\s+\d)", " number "),
    (r"\bqty\b|\bhow many\b", " quantity "),
    (r"^(how much (?:do|does|did|will|would) .*) costs?$", r" \1 "),
]  # fmt: skip
_SAYS_LITTLE = """
    a an the of on in at for to from by with and or is are was were be been it its this that these those there here what
    whats which who whose whom when where how much do does did can could would will you i we us me my our your please
    he she they him her them his hers their theirs
    tell show give find get know want have has stated shown listed mentioned given exact value
    eur gbp usd chf sek nok dkk pln cad aud nzd jpy cny inr
"""
#: The paper itself is no part of a key: "the total on this invoice".
_PAPER = """
    document page image picture photo scan paper sheet sign board poster label letter receipt form text invoice bill
    ticket order
"""
_READING = "say says said read reads written printed write transcribe extract ocr words everything all out"
_STOP, _PAPERS, _SAYS = (frozenset(words.split()) for words in (_SAYS_LITTLE, _PAPER, _READING))
_PAPER_PHRASE = rf"\b(on|in|of|from|for|at) (the|this|that|my|your|our) ({'|'.join(sorted(_PAPERS))})\b"
_CODE = re.compile(r"(?=.*[^\W\d])\w+|(19|20)\d\d")
_TELLING_DATE = {"date", "duedate", "birthdate", "when"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question is about: the words its key must hold, and what its value must look like."""

    words: Words
    kind: Kind = "any"
    loose: Words = ()  #: words that need not be printed
    everything: bool = False  #: all the text is asked for


def asked(question: str) -> Asked:
    """Say what a question, or the name of a field, asks for."""
    plain = _plain(question)
    if _asks_for_everything(plain):
        return Asked((), everything=True)
    same = _unified(re.sub(_PAPER_PHRASE, " ", plain))
    words = tuple(dict.fromkeys(w for w in same.split() if w not in _STOP))
    return Asked(words, _kind(words, plain), ("quantity",) if "how many" in plain else ())


def key_words(text: str) -> Words:
    """Give the telling words of a printed key, without figures ("VAT 20%" is "vat") unless it is a code ("Q3")."""
    words = [w for w in _unified(_plain(text)).split() if w not in _STOP]
    return tuple(dict.fromkeys(w for w in words if w.isalpha())) or tuple(words if _CODE.fullmatch(text) else ())


def same_word(a: str, b: str) -> bool:
    """Tell whether two words are the same but for a plural, or a slip in a long word."""
    if a == b or _stem(a) == _stem(b):
        return True
    return min(len(a), len(b)) >= 8 and a[0] == b[0] and OSA.distance(a, b) <= 1


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _plain(text: str) -> str:
    text = re.sub(r"['’]s\b", "", text.casefold()).replace("№", " number ").replace("#", " number ")
    return " ".join(re.sub(r"[^\w%]|_", " ", text).split())


def _unified(plain: str) -> str:
    for pattern, meaning in _SAME:
        plain = " ".join(re.sub(pattern, meaning, plain).split())
    return plain


def _asks_for_everything(plain: str) -> bool:
    words = [w for w in plain.split() if w not in _STOP]
    says = _SAYS | {"text"}
    return any(w in says for w in words) and all(w in says or w in _PAPERS for w in words)


def _kind(words: Words, plain: str) -> Kind:
    if "email" in words:
        return "email"
    if "phone" in words:
        return "phone"
    if _TELLING_DATE & set(words) or plain.startswith("when "):
        return "date"
    if "recipient" in words or plain.startswith(("who ", "whose ")):
        return "name"
    counted = {"total", "subtotal", "quantity", "price", "amount", "vat", "tax"} & set(words)
    return "figure" if counted or plain.startswith("how ") else "any"
