"""`python -m bench.quality`: files with known answers through the API, and what their scores mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.quality import human
from bench.quality.__main__ import figures, run
from bench.quality.cases import Case, UnknownFolder, read
from bench.quality.score import anls, plain, score
from tests.conftest import ROOT, Service, png


def case(kind: str, *answers: str, **params: str) -> Case:
    """A case that is only scored."""
    return Case(Path("x"), kind, answers, dict(params))  # type: ignore[arg-type]


def percents(*pairs: tuple[Case, str]) -> dict[str, float]:
    """The scores by name, rounded."""
    return {s.name: round(s.percent, 1) for s in score(pairs)}


def test_pages_are_scored_by_characters_and_words() -> None:
    """White space does not count; one letter of ten is 10 % CER, and its word half of two."""
    assert percents((case("ocr", "abcd  efghi"), "abcd\nefghX")) == {"ocr_cer": 10.0, "ocr_wer": 50.0}


def test_speech_is_scored_as_the_leaderboard_does() -> None:
    """Numbers, case and punctuation are normalised as Whisper's authors do, by language."""
    english = (case("asr", "Mr. Smith paid twenty dollars", language="en"), "mister smith paid $20")
    german = (case("asr", "Guten Tag, Herr Müller!", language="de"), "guten tag herr müller")

    assert percents(english) == {"asr_cer": 0.0, "asr_wer": 0.0}
    assert percents(german) == {"asr_cer": 0.0, "asr_wer": 0.0}


def test_answers_are_scored_by_the_best_of_the_right_ones() -> None:
    """ANLS and exact match take the answer that is nearest."""
    pairs = [
        (case("vqa", "42", "forty-two"), "Forty-two."),
        (case("vqa", "Paris"), "London"),
    ]

    assert percents(*pairs) == {"vqa_anls": 45.0, "vqa_exact": 50.0}


@pytest.mark.parametrize(
    ("answer", "said", "worth"),
    [
        ("Total", "total", 1.0),
        ("12345678", "12345679", 0.875),
        ("yes", "no", 0.0),
        ("abcd", "abxx", 0.5),
        ("a", "", 0.0),
    ],
)
def test_an_answer_less_than_half_right_is_worth_nothing(answer: str, said: str, worth: float) -> None:
    """ANLS as DocVQA defines it."""
    assert anls(answer, said) == worth


def test_a_right_answer_may_be_dressed_differently() -> None:
    """Case, white space and punctuation around it are no part of an answer."""
    assert plain(" “The  Total.” ") == plain("the total")
    assert plain("1.5") != plain("15")


def test_missing_answers_count_as_empty() -> None:
    """A file that fails must not make the score better."""
    assert percents((case("asr", "a red kite flew"), ""), (case("asr", "over us"), "over us"))["asr_wer"] == 66.7


def test_a_librispeech_folder_is_read(tmp_path: Path) -> None:
    """Transcripts lie beside their recordings, two folders down."""
    folder = tmp_path / "61" / "70968"
    folder.mkdir(parents=True)
    (folder / "61-70968.trans.txt").write_text("61-70968-0000 HE BEGAN A CONFUSED COMPLAINT\n61-70968-0001 GIVE NOT\n")

    cases = read(tmp_path)

    assert [(c.file.name, c.type, c.answers) for c in cases] == [
        ("61-70968-0000.flac", "asr", ("HE BEGAN A CONFUSED COMPLAINT",)),
        ("61-70968-0001.flac", "asr", ("GIVE NOT",)),
    ]


def test_docvqa_annotations_are_read(tmp_path: Path) -> None:
    """Every question over its image; a test set without answers is no use."""
    data = [
        {"questionId": 1, "question": "Who?", "image": "documents/a.png", "answers": ["ITC", "itc"]},
        {"questionId": 2, "question": "When?", "image": "documents/b.png"},
    ]
    (tmp_path / "val_v1.0.json").write_text(json.dumps({"dataset_name": "docvqa", "data": data}))

    (found,) = read(tmp_path)

    assert (found.file, found.params, found.answers) == (
        tmp_path / "documents" / "a.png",
        {"question": "Who?"},
        ("ITC", "itc"),
    )


def test_the_examples_are_read() -> None:
    """Pages, questions and speech that ship with the project."""
    cases = read(ROOT / "examples" / "inputs")

    assert {c.type for c in cases} == {"ocr", "vqa", "asr"}
    assert all(c.file.is_file() for c in cases)


def test_the_human_recording_is_written(tmp_path: Path) -> None:
    """From the package that carries it."""
    human.write(tmp_path)

    (found,) = read(tmp_path)

    assert found.file.is_file()
    assert found.answers[0].startswith("It was the best of times")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: Expecting"),
        ('{"type": "ocr", "answers": ["a"]}', "line 1: 'file'"),
        ('{"file": "a", "type": "chat", "answers": ["a"]}', "needs a `type`"),
        ('{"file": "a", "type": "ocr", "answers": []}', "needs a `type`"),
        ("[]", "line 1: list indices"),
    ],
)
def test_a_manifest_that_cannot_be_read_says_where(tmp_path: Path, line: str, message: str) -> None:
    """With its line and what is wrong."""
    (tmp_path / "answers.jsonl").write_text(line)

    with pytest.raises(UnknownFolder, match=message):
        read(tmp_path)


def test_a_folder_without_answers_is_refused(tmp_path: Path) -> None:
    """Naming the forms that are known."""
    (tmp_path / "other.json").write_text("[]")

    with pytest.raises(UnknownFolder, match="LibriSpeech"):
        read(tmp_path)


def test_every_file_goes_through_the_service(service: Service, tmp_path: Path) -> None:
    """The engine's words are scored; a file that fails and one that is not there are counted, and end nothing."""
    lines = [
        {"file": "a.png", "type": "ocr", "answers": ["page 320x200"]},
        {"file": "a.png", "type": "vqa", "params": {"question": "Seen?"}, "answers": ["1 images: Seen?"]},
        {"file": "a.png", "type": "vqa", "params": {"question": "fail"}, "answers": ["x"]},
        {"file": "missing.png", "type": "ocr", "answers": ["page"]},
    ]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "a.png").write_bytes(png(320, 200))
    cases = read(tmp_path)

    answers = run(service.http, cases, in_flight=2)

    assert [bool(said.fault) for said in answers] == [False, False, True, True]
    found = {f.name: f.value for f in figures(tmp_path, cases, answers)}
    assert found == {"ocr_cer": 25.0, "ocr_wer": 33.33, "vqa_anls": 50.0, "vqa_exact": 50.0, "quality_failed": 2}
