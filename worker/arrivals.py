"""Brings the inputs of a job into the blob store: what came as a URL is fetched, and looked at."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace

from phi4.blobs import Blobs
from phi4.errors import EmptyInput, UnsupportedMedia
from phi4.job import Input, Job, input_blob
from phi4.media_type import HEAD_BYTES, kinds_for, sniff
from phi4.settings import Settings
from worker.outgoing import Outgoing


class Arrivals:
    """The inputs of jobs, as stored blobs whose hash is known."""

    def __init__(self, blobs: Blobs, outgoing: Outgoing, settings: Settings) -> None:
        self._blobs = blobs
        self._outgoing = outgoing
        self._settings = settings

    def at_hand(self, job: Job, check: Callable[[], None] = lambda: None) -> list[Input]:
        """Fetch what is still a URL; `check` is called before each one, and what it raises ends the fetching.

        Raises `InputError`, and what `Outgoing` raises.
        """
        return [one if one.blob else self._fetched(job, n, one, check) for n, one in enumerate(job.inputs)]

    def _fetched(self, job: Job, number: int, one: Input, check: Callable[[], None]) -> Input:
        check()
        key = input_blob(job.id, number)
        with tempfile.TemporaryFile() as file:
            settings = self._settings
            most = settings.max_body_mb << 20
            self._outgoing.download(one.url, file, most_bytes=most, seconds=settings.fetch_seconds)
            file.seek(0)
            head = file.read(HEAD_BYTES)
            media = sniff(head)
            if not head:
                raise EmptyInput("The file behind the URL is empty.")
            kinds = kinds_for(job.type, job.params, number)
            if media is None or media.kind not in kinds:
                raise UnsupportedMedia(
                    f"The file behind the URL is not of the kind needed here: {', '.join(sorted(kinds))}."
                )
            file.seek(0)
            length, sha256 = self._blobs.put_stream(key, file)
        return replace(one, blob=key, media_type=media.mime, bytes=length, sha256=sha256)
