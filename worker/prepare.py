"""Cuts a job into parts: pages of its documents, clips of its recording, or one question over its images."""

from __future__ import annotations

import io
import logging
import wave
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from phi4.blobs import Blobs
from phi4.errors import (
    Cancelled,
    InputError,
    LeaseLost,
    NothingHeard,
    Phi4Error,
    ServiceError,
    TooManyImages,
    TooManyPages,
)
from phi4.job import Input, Job, Unit, error_json
from phi4.params import choose_pages
from phi4.settings import Settings
from phi4.store import Store
from worker.arrivals import Arrivals
from worker.engines.base import MOST_CLIPS, MOST_IMAGES
from worker.finish import Finish
from worker.in_flight import Held
from worker.media import audio, images, pdf
from worker.reports import Reports

_log = logging.getLogger(__name__)
Spec = dict[str, Any]
#: An A4 page at 150 dpi fits Phi-4's twelve crops of detail "auto" exactly; at 250 dpi, its thirty-five of "high".
_DPI = {"auto": 150, "low": 150, "high": 250}


@dataclass(frozen=True, slots=True)
class _Page:
    """One page of one input, as it will be looked at; `image` is None when the stored blob is used as it is."""

    input: int
    number: int
    image: Image | InputError | None
    blob: str = ""
    sha256: str = ""
    size: tuple[int, int] = (0, 0)
    dpi: int | None = None


class Prepare:
    """The preparation of jobs; it opens strangers' files, so that no engine has to."""

    #: A job whose preparation fails for a reason that may pass is prepared again this many times in all.
    tries = 3

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        reports: Reports,
        arrivals: Arrivals,
        finish: Finish,
        settings: Settings,
        *,
        worker: str,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._reports = reports
        self._arrivals = arrivals
        self._finish = finish
        self._settings = settings
        self._worker = worker
        self._lease_ms = int(settings.lease_seconds * 1000)

    def run(self, held: Held) -> Unit | None:
        """Add every part of a job, or end it with an earlier result.

        Returns its finishing when it has parts, and none of them is for an engine.

        Raises `InputError` (cannot be worked on), `ServiceError` (may work later), `Cancelled` and `LeaseLost`.
        """
        job = held.unit.job
        try:
            inputs = self._arrivals.at_hand(job, lambda: _check(held))
            if self._finish.from_earlier(held.unit, inputs):
                return None
            match job.type:
                case "ocr":
                    return self._plan_pages(held, inputs)
                case "vqa":
                    return self._plan_question(held, inputs)
                case "asr":
                    return self._plan_clips(held, inputs)
                case "chat":
                    return self._plan_chat(held, inputs)
        except Phi4Error:
            raise
        except Exception as error:
            _log.exception("preparation failed", extra={"phi4_fields": job.log_context()})
            raise ServiceError(f"Preparation failed: {type(error).__name__}.") from None

    def fail(self, unit: Unit, error: Phi4Error) -> None:
        """End a job that cannot be prepared."""
        try:
            self._reports.follow(unit, self._store.work.end(unit, "failed", error=error_json(error, "prepare")))
        except LeaseLost:
            return

    # -- pages

    def _plan_pages(self, held: Held, inputs: list[Input]) -> Unit | None:
        counted = [self._count_pages(held, one) for one in inputs]
        chosen = [self._choose(held.unit.job, one) for one in counted]
        dpi = repeat(_dpi(held.unit.job))
        pages = chain.from_iterable(map(self._pages, range(len(counted)), counted, chosen, dpi))
        specs = (self._page_spec(held.unit, str(n), page) for n, page in enumerate(pages))
        return self._plan(held, specs, expected=sum(map(len, chosen)), inputs=counted)

    def _plan_question(self, held: Held, inputs: list[Input]) -> Unit | None:
        counted = [self._count_pages(held, one) for one in inputs]
        self._check_together(held.unit.job, counted)
        looked_at = chain.from_iterable(self._look_at(held, n, one) for n, one in enumerate(counted))
        return self._plan(held, [{"images": list(looked_at)}], expected=1, inputs=counted)

    def _look_at(self, held: Held, number: int, one: Input) -> Iterator[Spec]:
        """Make the pages of one input that are looked at together: one that cannot be made spoils them all."""
        job = held.unit.job
        pages = self._pages(number, one, self._choose(job, one), _dpi(job))
        for n, page in enumerate(pages):
            spec = self._page_spec(held.unit, f"{number}-{n}", page)
            if isinstance(page.image, InputError):
                raise page.image
            yield spec
            _check(held)

    def _count_pages(self, held: Held, one: Input) -> Input:
        _check(held)
        with self._blobs.as_file(one.blob, sha256=one.sha256) as path:
            count = pdf.page_count(path) if _is_pdf(one) else images.frame_count(path)
        return replace(one, pages=count)

    def _choose(self, job: Job, one: Input) -> list[int]:
        numbers = choose_pages(job.params.get("pages"), one.pages or 0)
        if len(numbers) > self._settings.max_pages:
            raise TooManyPages(f"{len(numbers)} pages are more than {self._settings.max_pages}.")
        return numbers

    def _check_together(self, job: Job, pictures: Iterable[Input]) -> None:
        """Raise `TooManyImages` before anything is drawn that no engine looks at, and that it would have to hold."""
        if (count := sum(len(self._choose(job, one)) for one in pictures)) > MOST_IMAGES:
            raise TooManyImages(f"The question is asked over {count} images; at most {MOST_IMAGES} fit.")

    def _pages(self, number: int, one: Input, pages: list[int], dpi: int) -> Iterator[_Page]:
        with self._blobs.as_file(one.blob) as path:
            yield from (
                self._pdf_pages(path, number, pages, dpi) if _is_pdf(one) else self._frames(path, number, one, pages)
            )

    def _pdf_pages(self, path: Path, number: int, pages: list[int], dpi: int) -> Iterator[_Page]:
        for page, image in pdf.pages(path, pages, dpi=dpi, max_pixels=self._settings.max_pixels):
            yield _Page(number, page, image, size=image.size if isinstance(image, Image) else (0, 0), dpi=dpi)

    def _frames(self, path: Path, number: int, one: Input, pages: list[int]) -> Iterator[_Page]:
        as_is = images.usable_as_is(path)
        frames = images.frames(path, max_pixels=self._settings.max_pixels, numbers=pages)
        for page, image in zip(pages, frames, strict=True):
            yield _Page(number, page, None if as_is else image, one.blob, one.sha256, size=image.size)

    def _page_spec(self, unit: Unit, name: str, page: _Page) -> Spec:
        spec: Spec = {"input": page.input, "page": page.number}
        if isinstance(page.image, InputError):
            return spec | {"error": error_json(page.image, "prepare")}
        blob, sha256 = page.blob, page.sha256
        if page.image is not None:
            blob = f"{unit.job.scratch}/{name}.image"
            sha256 = self._blobs.put(blob, images.encode(page.image))
        width, height = page.size
        return spec | {"blob": blob, "sha256": sha256, "width": width, "height": height, "dpi": page.dpi}

    # -- clips

    def _plan_clips(self, held: Held, inputs: list[Input]) -> Unit | None:
        one = inputs[0]
        with self._blobs.as_file(one.blob, sha256=one.sha256) as path, self._recording(held, path) as recording:
            specs = (self._clip_spec(held.unit, 0, n, clip) for n, clip in enumerate(recording.clips()))
            timed = _Timed(one, recording)
            return self._plan(held, specs, expected=0, inputs=timed)

    def _recording(self, held: Held, path: Path) -> AbstractContextManager[audio.Recording]:
        longest = self._settings.max_audio_seconds
        return audio.open_recording(path, max_seconds=longest, on_block=lambda: _check(held))

    def _clip_spec(self, unit: Unit, input: int, number: int, clip: audio.Clip) -> Spec:
        blob = f"{unit.job.scratch}/{input}-{number}.wav"
        sha256 = self._blobs.put(blob, _wav(clip.samples))
        times = {"start": round(clip.start, 3), "end": round(clip.end, 3)}
        return {"input": input, "blob": blob, "sha256": sha256, **times}

    # -- conversations

    def _plan_chat(self, held: Held, inputs: list[Input]) -> Unit | None:
        """Make the one part of a conversation: for each input, all of its pages or clips."""
        counted = [self._count_pages(held, one) if _is_picture(one) else one for one in inputs]
        self._check_together(held.unit.job, filter(_is_picture, counted))
        media: list[list[Spec]] = []
        known: list[Input] = []
        clips = 0
        for number, one in enumerate(counted):
            if _is_picture(one):
                media.append(list(self._look_at(held, number, one)))
            else:
                specs, seconds = self._listen_to(held, number, one, most=MOST_CLIPS - clips)
                clips += len(specs)
                one = replace(one, seconds=seconds)
                media.append(specs)
            known.append(one)
        return self._plan(held, [{"media": media}], expected=1, inputs=known)

    def _listen_to(self, held: Held, number: int, one: Input, *, most: int) -> tuple[list[Spec], float]:
        specs: list[Spec] = []
        with self._blobs.as_file(one.blob, sha256=one.sha256) as path, self._recording(held, path) as recording:
            for clip in recording.whole():
                _check(held)
                if len(specs) == most:
                    raise TooManyImages(f"The question is asked over more than {MOST_CLIPS} clips of 30 s.")
                specs.append(self._clip_spec(held.unit, number, len(specs), clip))
        if not specs:
            raise NothingHeard
        return specs, round(recording.duration, 3)

    # -- handing over

    def _plan(self, held: Held, specs: Iterable[Spec], *, expected: int, inputs: Iterable[Input]) -> Unit | None:
        """Add parts as they are made; the last one seals the job, so that a job of one part takes one step."""
        number, waiting = 0, None
        for spec in specs:
            _check(held)
            if waiting is not None:
                self._add(held.unit, [waiting], number, expected)
                number += 1
            waiting = spec
        facts = [one.to_json() for one in inputs]
        return self._add(held.unit, [waiting] if waiting else [], number, expected, facts)

    def _add(
        self, unit: Unit, specs: list[Spec], first: int, expected: int, facts: list[Spec] | None = None
    ) -> Unit | None:
        reported = self._store.work.plan(
            unit,
            specs,
            first=first,
            sealed=facts is not None,
            worker=self._worker,
            lease_ms=self._lease_ms,
            expected=expected,
            inputs=facts,
        )
        self._reports.follow(unit, reported)
        return reported.finish


@dataclass(frozen=True, slots=True)
class _Timed:
    """The one input of a recording, whose length is known once its clips were cut."""

    input: Input
    recording: audio.Recording

    def __iter__(self) -> Iterator[Input]:
        yield replace(self.input, seconds=round(self.recording.duration, 3))


def _check(held: Held) -> None:
    if held.stopped.is_set():
        raise Cancelled


def _dpi(job: Job) -> int:
    return _DPI[job.params.get("detail", "auto")]


def _is_picture(one: Input) -> bool:
    return one.media_type.startswith("image/") or _is_pdf(one)


def _is_pdf(one: Input) -> bool:
    return one.media_type == "application/pdf"


def _wav(samples: NDArray[np.float32]) -> bytes:
    """Pack mono 16 kHz samples as 16-bit WAV."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes((np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes())
    return file.getvalue()
