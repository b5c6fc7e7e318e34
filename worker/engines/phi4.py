"""What Phi-4-multimodal is asked: the prompt, the pictures' size, the adapter and the limits of every task.

Both engines that run the model share this file, and every word the model is told stands here. Prompt formats are those
of the model card of microsoft/Phi-4-multimodal-instruct: turns without line breaks, media before the words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from PIL.Image import Image

from phi4.errors import AudioTooShort, CannotAnswer, ImageTooSmall, PromptTooLong
from worker.engines.base import AskImages, Chat, Detail, ReadPage, Sound, Task, TranscribeClip, Turn
from worker.engines.crops import DETAIL_CROPS, fit, fitted, image_tokens

#: What ends an answer: `<|end|>` and `<|endoftext|>`.
STOP_TOKEN_IDS = (200020, 199999)
SAMPLE_RATE = 16_000
#: The model's feature extractor makes nothing of less.
MIN_AUDIO_SECONDS = 0.1
#: One audio token stands for 80 ms.
_AUDIO_TOKENS_PER_SECOND = 12.5
_PLACEHOLDER = re.compile(r"<\|(image|audio)_\d+\|>")

READ_PAGE = {
    "markdown": (
        "Read this page and write down all of its text as Markdown, in reading order. "
        "Keep headings, lists and tables. Write nothing that is not on the page."
    ),
    "text": (
        "Read this page and write down all of its text, in reading order, as plain text. "
        "Write nothing that is not on the page."
    ),
}
TRANSCRIBE = "Transcribe the audio clip into text."
TRANSLATE = "Translate the audio to {language}."
HINT = " Words that may occur: {hint}"
AS_JSON = "\nAnswer with one JSON value that fits this JSON Schema: {schema}"

#: Languages the model hears (model card).
HEARD = {
    "en": "English", "zh": "Chinese", "de": "German", "fr": "French",
    "it": "Italian", "ja": "Japanese", "es": "Spanish", "pt": "Portuguese",
}  # fmt: skip
#: Languages the model writes (model card).
WRITTEN = HEARD | {
    "ar": "Arabic", "cs": "Czech", "da": "Danish", "nl": "Dutch", "fi": "Finnish", "he": "Hebrew", "hu": "Hungarian",
    "ko": "Korean", "no": "Norwegian", "pl": "Polish", "ru": "Russian", "sv": "Swedish", "th": "Thai",
    "tr": "Turkish", "uk": "Ukrainian",
}  # fmt: skip

#: Most tokens of an answer when the caller names none: a dense page, an answer, 30 s of quick speech, a turn.
DEFAULT_MAX_TOKENS = {ReadPage: 4096, AskImages: 1024, TranscribeClip: 512, Chat: 2048}
#: A page or clip that runs in circles is asked again this warm.
RETRY_TEMPERATURES = (0.3, 0.6)

#: Writing whose signs are a token each, or nearly: Chinese, Japanese, Korean.
_DENSE = re.compile(r"[\u2e80-\ud7ff\uf900-\ufaff]")

Adapter = Literal["vision", "speech"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request to the model: `text` names `images` and `clips` by their placeholders."""

    text: str
    images: tuple[Image, ...] = ()
    clips: tuple[Sound, ...] = ()
    #: None asks the plain language model.
    adapter: Adapter | None = None
    max_tokens: int = 1024
    #: Whether the caller named `max_tokens`, so that an answer cut there is what was asked for.
    cut_is_wanted: bool = False
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None
    #: Temperatures to try again with when the answer runs in circles.
    retries: tuple[float, ...] = ()


def prompt_for(task: Task, *, max_model_len: int) -> Prompt:
    """Write the prompt of a task, its pictures scaled so that they fit the context.

    Raises `CannotAnswer` (a language the model does not know), `AudioTooShort`, `ImageTooSmall`, `PromptTooLong`.
    """
    match task:
        case ReadPage():
            return _read_page(task, max_model_len)
        case AskImages():
            return _ask_images(task, max_model_len)
        case TranscribeClip():
            return _transcribe(task)
        case Chat():
            return _chat(task, max_model_len)


def plain(text: str) -> str:
    """Break up control tokens (`<|…|>`) in a caller's text: the tokenizer would take them for the template's own."""
    return text.replace("<|", "< |")


def room_for_answer(prompt: Prompt, prompt_tokens: int, *, max_model_len: int) -> int:
    """Say how many tokens the answer may have. Raises `PromptTooLong` when there is no room for one."""
    room = max_model_len - prompt_tokens
    if room < 1:
        raise too_long(prompt_tokens, max_model_len)
    return min(prompt.max_tokens, room)


def too_long(prompt_tokens: int, max_model_len: int) -> PromptTooLong:
    """Say how long a prompt is and may be."""
    return PromptTooLong(
        f"The prompt is {prompt_tokens} tokens long, and the model was started for {max_model_len} in all "
        "(PHI4_MAX_MODEL_LEN)."
    )


def count_tokens(prompt: Prompt, of_words: Callable[[str], int]) -> int:
    """Count a prompt's tokens; what stands for pictures and clips in its text becomes as many as they take."""
    pictures = sum(image_tokens(*image.size) for image in prompt.images)
    return pictures + sum(map(_audio_tokens, prompt.clips)) + of_words(_PLACEHOLDER.sub("", prompt.text))


def _audio_tokens(clip: Sound) -> int:
    return int(len(clip) / SAMPLE_RATE * _AUDIO_TOKENS_PER_SECOND)


def _read_page(task: ReadPage, max_model_len: int) -> Prompt:
    words = plain(task.prompt) if task.prompt else READ_PAGE[task.format]
    limit = _limit(task)
    (page,) = _sized((task.image,), task.detail, max_model_len - _words_tokens(words), _answer_tokens(task))
    return Prompt(
        _turn("user", f"<|image_1|>{words}") + _ASSISTANT,
        images=(page,),
        adapter="vision",
        temperature=task.temperature,
        retries=_warmer_than(task.temperature),
        **limit,
    )


def _ask_images(task: AskImages, max_model_len: int) -> Prompt:
    words = plain(task.question) + _schema_words(task.response_schema)
    system = _turn("system", plain(task.system)) if task.system else ""
    images = _sized(task.images, task.detail, max_model_len - _words_tokens(system + words), _answer_tokens(task))
    return Prompt(
        system + _turn("user", _placeholders("image", len(images)) + words) + _ASSISTANT,
        images=images,
        adapter="vision",
        temperature=task.temperature,
        schema=task.response_schema,
        **_limit(task),
    )


def _transcribe(task: TranscribeClip) -> Prompt:
    _check_language(task.language, HEARD, "hears", "language")
    words = TRANSCRIBE
    if task.task == "translate":
        _check_language(task.target_language, WRITTEN, "writes", "target_language")
        words = TRANSLATE.format(language=WRITTEN[task.target_language])
    if task.prompt:
        words += HINT.format(hint=plain(task.prompt))
    _check_clip(task.samples)
    return Prompt(
        _turn("user", f"<|audio_1|>{words}") + _ASSISTANT,
        clips=(task.samples,),
        adapter="speech",
        retries=RETRY_TEMPERATURES,
        **_limit(task),
    )


def _chat(task: Chat, max_model_len: int) -> Prompt:
    images = tuple(part for turn in task.turns for part in turn.content if isinstance(part, Image))
    clips = tuple(part for turn in task.turns for part in turn.content if isinstance(part, np.ndarray))
    for clip in clips:
        _check_clip(clip)
    text = _turns(_told_to_fit(task.turns, task.response_schema))
    heard = sum(map(_audio_tokens, clips))
    return Prompt(
        text + _ASSISTANT,
        images=_sized(images, task.detail, max_model_len - _words_tokens(text) - heard, _answer_tokens(task)),
        clips=clips,
        # With both, the vision adapter, as Microsoft's own code chooses.
        adapter="vision" if images else "speech" if clips else None,
        temperature=task.temperature,
        top_p=task.top_p,
        seed=task.seed,
        stop=task.stop,
        schema=task.response_schema,
        **_limit(task),
    )


_ASSISTANT = "<|assistant|>"


def _turn(role: str, content: str) -> str:
    return f"<|{role}|>{content}<|end|>"


def _told_to_fit(turns: tuple[Turn, ...], schema: dict[str, Any] | None) -> tuple[Turn, ...]:
    """Add what an answer has to fit to the end of the user's last turn."""
    if schema is None:
        return turns
    last = max((n for n, turn in enumerate(turns) if turn.role == "user"), default=len(turns))
    told = turns[last].content if last < len(turns) else ()
    return (*turns[:last], Turn("user", (*told, _schema_words(schema))), *turns[last + 1 :])


def _turns(turns: Sequence[Turn]) -> str:
    """Spell the turns; media get their numbers in the order they come in."""
    seen = {"image": 0, "audio": 0}

    def placeholder(part: Image | Sound) -> str:
        kind = "image" if isinstance(part, Image) else "audio"
        seen[kind] += 1
        return f"<|{kind}_{seen[kind]}|>"

    def spell(content: tuple[str | Image | Sound, ...]) -> Iterator[str]:
        words = ""
        for part in content:
            if isinstance(part, str):
                words += part  # Side by side they are one text: of "<" and "|end|>", each alone is harmless.
            else:
                yield plain(words) + placeholder(part)
                words = ""
        yield plain(words)

    return "".join(_turn(turn.role, "".join(spell(turn.content))) for turn in turns)


def _placeholders(kind: str, count: int) -> str:
    return "".join(f"<|{kind}_{n}|>" for n in range(1, count + 1))


def _schema_words(schema: dict[str, Any] | None) -> str:
    return AS_JSON.format(schema=plain(json.dumps(schema, ensure_ascii=False))) if schema is not None else ""


def _limit(task: Task) -> dict[str, Any]:
    return {
        "max_tokens": task.max_tokens or DEFAULT_MAX_TOKENS[type(task)],
        "cut_is_wanted": task.max_tokens is not None,
    }


def _warmer_than(temperature: float) -> tuple[float, ...]:
    return tuple(t for t in RETRY_TEMPERATURES if t > temperature)


def _words_tokens(words: str) -> int:
    """A rough count, to leave room beside the pictures; the exact one is checked before the engine sees the prompt."""
    dense = len(_DENSE.findall(words))
    return (len(words) - dense) // 3 + dense + 64


def _answer_tokens(task: Task) -> int:
    """What an answer of the usual length takes, or of the length that was asked for, if that is less."""
    usual = DEFAULT_MAX_TOKENS[type(task)]
    return min(task.max_tokens or usual, usual)


def _sized(images: Sequence[Image], detail: Detail, room: int, answer: int) -> tuple[Image, ...]:
    """Scale pictures to the finest detail that leaves them, and an answer of `answer` tokens, in `room` tokens.

    "auto" goes down in steps; where none leaves so much, half of it will do, or a quarter. A detail that was asked for
    is kept. Raises `PromptTooLong` and `ImageTooSmall`.
    """
    if not images:
        return ()
    steps = _steps([image.size for image in images], detail)
    for enough in (answer, answer // 2, answer // 4, 0):
        for crops, needed in steps:
            if needed + enough < room:
                return tuple(fit(image, crops) for image in images)
    raise PromptTooLong(
        f"{len(images)} images take {steps[-1][1]} tokens at detail {detail!r}, and {max(0, room)} of the context are "
        "left for them (PHI4_MAX_MODEL_LEN); ask over fewer pages, or with less detail."
    )


def _steps(sizes: Sequence[tuple[int, int]], detail: Detail) -> list[tuple[int, int]]:
    """List the most crops of a picture, and the tokens of all, at each step of a detail, while none of them vanishes.

    Raises `ImageTooSmall` when one does at the first step.
    """
    steps: list[tuple[int, int]] = []
    for crops in DETAIL_CROPS[detail]:
        try:
            steps.append((crops, sum(image_tokens(*fitted(size, crops)) for size in sizes)))
        except ImageTooSmall:
            if not steps:
                raise
            break
    return steps


def _check_clip(clip: Sound) -> None:
    if (seconds := len(clip) / SAMPLE_RATE) < MIN_AUDIO_SECONDS:
        raise AudioTooShort(f"The clip is {seconds:.3f} s long; the model needs at least {MIN_AUDIO_SECONDS} s.")


def _check_language(code: str | None, known: dict[str, str], verb: str, field: str) -> None:
    if code is not None and code not in known:
        raise CannotAnswer(
            f'`params.{field}` is "{code}"; Phi-4-multimodal {verb} {", ".join(sorted(known))} (ISO 639-1).'
        )


def warmer(prompt: Prompt, temperature: float) -> Prompt:
    """The same prompt at another temperature."""
    return replace(prompt, temperature=temperature)
