"""Compares what was answered with what is right: CER, WER, ANLS and exact match."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import jiwer
from rapidfuzz.distance import Levenshtein
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from bench.quality.cases import Case

#: DocVQA's: answers further off than half count nothing.
ANLS_THRESHOLD = 0.5


@dataclass(frozen=True)
class Score:
    """One measure over all cases of a type, in percent."""

    name: str
    percent: float
    cases: int
    how: str


Pair = tuple[Case, str]


def score(pairs: Sequence[Pair]) -> list[Score]:
    """Score answers by type, speech by language too; a case without an answer counts as an empty one."""
    found: list[Score] = []
    if pages := [p for p in pairs if p[0].type == "ocr"]:
        found += _rates("ocr", pages, one_space, "white space made one space")
    for language, spoken in _by_language(p for p in pairs if p[0].type == "asr").items():
        normal = EnglishTextNormalizer() if language == "en" else BasicTextNormalizer()
        how = "Whisper's English normaliser" if language == "en" else f"Whisper's basic normaliser, {language}"
        found += _rates("asr", spoken, normal, how)
    if questions := [p for p in pairs if p[0].type == "vqa"]:
        near = [max(anls(answer, said) for answer in case.answers) for case, said in questions]
        same = [any(plain(answer) == plain(said) for answer in case.answers) for case, said in questions]
        found += [
            Score("vqa_anls", _percent(near), len(near), f"threshold {ANLS_THRESHOLD}, best of the right answers"),
            Score("vqa_exact", _percent(same), len(same), "case, outer punctuation and white space ignored"),
        ]
    return found


def one_space(text: str) -> str:
    """Make every run of white space one space."""
    return " ".join(text.split())


def plain(text: str) -> str:
    """Drop what is no part of an answer: case, white space, punctuation around it."""
    return re.sub(r"^\W+|\W+$", "", one_space(text).casefold())


def anls(answer: str, said: str) -> float:
    """Average Normalized Levenshtein Similarity of one answer (Biten et al., 2019), 0 to 1."""
    near = float(Levenshtein.normalized_similarity(one_space(answer).lower(), one_space(said).lower()))
    return near if near >= ANLS_THRESHOLD else 0.0


def _rates(kind: str, pairs: Sequence[Pair], normal: Callable[[str], str], how: str) -> list[Score]:
    right = [normal(case.answers[0]) for case, _ in pairs]
    said = [normal(text) for _, text in pairs]
    return [
        Score(f"{kind}_cer", 100 * float(jiwer.cer(right, said)), len(pairs), how),
        Score(f"{kind}_wer", 100 * float(jiwer.wer(right, said)), len(pairs), how),
    ]


def _by_language(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    found: dict[str, list[Pair]] = {}
    for case, said in pairs:
        found.setdefault(str(case.params.get("language", "en")), []).append((case, said))
    return found


def _percent(values: Sequence[float]) -> float:
    return 100 * sum(values) / len(values)
