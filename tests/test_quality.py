"""`python -m bench.quality`: files with known answers through the API, and what their scores mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import table
from bench.__main__ import main as bench
from bench.figures import Figure
from bench.quality import human
from bench.quality.__main__ import Said, figures, mean, run
from bench.quality.cases import Case, UnknownFolder, read
from bench.quality.score import anls, plain, score
from tests.conftest import ROOT, Service, png
from tests.scripted_jobs import document


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


DOCVQA = [
    {"questionId": 1, "question": "Who?", "image": "documents/a.png", "answers": ["ITC", "itc"]},
    {"questionId": 2, "question": "When?", "image": "documents/b.png"},
]


@pytest.mark.parametrize(
    ("pictures", "found_at"),
    [
        pytest.param("spdocvqa_images", "spdocvqa_images/a.png", id="as the archive has them"),
        pytest.param("pictures/documents", "pictures/documents/a.png", id="as the annotations name them"),
    ],
)
def test_docvqa_annotations_are_read(tmp_path: Path, pictures: str, found_at: str) -> None:
    """Every question over its image; one without answers is no use."""
    (tmp_path / "val.json").write_text(json.dumps({"dataset_name": "docvqa", "data": DOCVQA}))
    (tmp_path / pictures).mkdir(parents=True)
    (tmp_path / pictures / "a.png").touch()

    (found,) = read(tmp_path / "val.json", tmp_path / pictures.partition("/")[0])

    assert (found.file, found.params, found.answers) == (tmp_path / found_at, {"question": "Who?"}, ("ITC", "itc"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "no annotations as DocVQA has them"),
        ("[]", "no annotations as DocVQA has them"),
        ('{"data": [{"question": "Who?", "answers": ["ITC"]}]}', "KeyError\\('image'\\)"),
        (json.dumps({"data": DOCVQA[1:]}), "no answers to compare with; take the validation set"),
    ],
)
def test_annotations_that_cannot_be_used_say_why(tmp_path: Path, content: str, message: str) -> None:
    """Naming the file."""
    (tmp_path / "test.json").write_text(content)

    with pytest.raises(UnknownFolder, match=f"test.json holds .*{message}"):
        read(tmp_path / "test.json")


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

    with pytest.raises(UnknownFolder, match=r"LibriSpeech\). For DocVQA name the file"):
        read(tmp_path)


def test_every_file_goes_through_the_service(service: Service, tmp_path: Path) -> None:
    """The engine's words are scored; files that fail, wholly or in part, are counted, and end nothing."""
    lines = [
        {"file": "a.png", "type": "ocr", "answers": ["page 320x200"]},
        {"file": "a.png", "type": "vqa", "params": {"question": "Seen?"}, "answers": ["1 images: Seen?"]},
        {"file": "a.png", "type": "vqa", "params": {"question": "fail"}, "answers": ["x"]},
        {"file": "a.png", "type": "vqa", "params": {"questions": "refused"}, "answers": ["x"]},
        {"file": "missing.png", "type": "ocr", "answers": ["page"]},
        {"file": "broken.pdf", "type": "ocr", "answers": ["page"]},
    ]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "a.png").write_bytes(png(320, 200))
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 and no more")
    cases = read(tmp_path)

    answers = run(service.http, cases, in_flight=2)

    assert [bool(said.fault) for said in answers] == [False, False, True, True, True, True]
    assert "422" in answers[3].fault
    assert "question" in answers[3].fault
    found = {f.name: f.value for f in figures("set", cases, answers)}
    assert found == {"ocr_cer": 40.0, "ocr_wer": 50.0, "vqa_anls": 33.33, "vqa_exact": 33.33, "quality_failed": 4}


def test_a_document_read_in_part_is_scored_and_counted(service: Service, tmp_path: Path) -> None:
    """Its pages that were read count; so does the fault."""
    (tmp_path / "three.pdf").write_bytes(document(300, 2, 400))

    (said,) = run(service.http, [Case(tmp_path / "three.pdf", "ocr", ("x",))], in_flight=1)

    assert said.text.count("page ") == 2
    assert said.fault.startswith("page 2: ")


def test_words_after_the_question_are_asked_and_named(service: Service, tmp_path: Path) -> None:
    """Scores with and without them differ, so the conditions quote them."""
    (tmp_path / "a.png").write_bytes(png())
    question = Case(tmp_path / "a.png", "vqa", ("1 images: Seen? Be brief.",), {"question": "Seen?"})

    answers = run(service.http, [question], in_flight=1, after_question="Be brief.")
    anls_figure, *_ = figures("set", [question], answers, after_question="Be brief.")

    assert anls_figure.value == 100.0
    assert 'asked with "Be brief."' in anls_figure.conditions


def test_conditions_say_what_was_heard() -> None:
    """Synthetic speech is easier than a person's, so a reader must know."""
    spoken = Case(Path("x"), "asr", ("good morning",), {"language": "en"}, "synthetic speech (espeak-ng)")

    cer, *_ = figures("inputs", [spoken], [Said("Good morning.", "cpu", "moonshine")])

    assert cer.conditions == (
        "cpu (moonshine), 1 case of set inputs, synthetic speech (espeak-ng), Whisper's English normaliser"
    )


def test_several_sets_have_a_mean() -> None:
    """Each counts alike, whatever its size, and only what several have is averaged."""
    of = {
        "clean": [Figure("asr_wer", 2.0, "%", "of 900"), Figure("quality_failed", 1, "cases", "")],
        "other": [Figure("asr_wer", 4.0, "%", "of 100"), Figure("vqa_anls", 90.0, "%", "")],
    }

    assert list(mean(of)) == [Figure("asr_wer_mean", 3.0, "%", "mean over sets clean, other")]


def test_the_command_keeps_what_it_measured(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON lines on stdout, the faults on stderr, a file for the table that says the service ran elsewhere."""
    monkeypatch.setattr("bench.__main__.__file__", str(tmp_path / "bench" / "__main__.py"))
    monkeypatch.setattr(table, "ROOT", tmp_path)
    (tmp_path / "bench").mkdir()
    lines = [{"file": name, "type": "ocr", "answers": ["page 320x200"]} for name in ("a.png", "missing.png")]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "a.png").write_bytes(png(320, 200))

    bench(["quality", str(tmp_path), "--url", str(service.http.base_url)])

    printed = capsys.readouterr()
    names = [json.loads(line)["name"] for line in printed.out.splitlines()]
    kept = json.loads((tmp_path / f"bench/results/quality-scripted-{tmp_path.name}.json").read_text())
    assert names == [figure["name"] for figure in kept["figures"]] == ["ocr_cer", "ocr_wer", "quality_failed"]
    assert {"jiwer", "whisper-normalizer"} <= set(kept["versions"])
    assert "missing.png: FileNotFoundError" in printed.err
    assert table.table().endswith(", a service on another machine.")


def test_several_sets_are_kept_apart_and_averaged(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two that are called alike go by their folder's name too."""
    monkeypatch.setattr("bench.__main__.__file__", str(tmp_path / "bench" / "__main__.py"))
    (tmp_path / "bench").mkdir()
    sets = [tmp_path / "ami" / "test", tmp_path / "tedlium" / "test"]
    for folder, words in zip(sets, ("page 320x200", "page"), strict=True):
        folder.mkdir(parents=True)
        (folder / "answers.jsonl").write_text(json.dumps({"file": "a.png", "type": "ocr", "answers": [words]}))
        (folder / "a.png").write_bytes(png(320, 200))

    bench(["quality", *map(str, sets), "--url", str(service.http.base_url)])

    told = {f["name"]: f for f in map(json.loads, capsys.readouterr().out.splitlines())}
    assert (told["ocr_wer_mean"]["value"], told["ocr_wer_mean"]["conditions"]) == (
        50.0,
        "mean over sets ami-test, tedlium-test",
    )
    kept = {path.name for path in (tmp_path / "bench" / "results").iterdir()}
    assert kept == {f"quality-scripted-{name}.json" for name in ("ami-test", "tedlium-test", "mean")}
