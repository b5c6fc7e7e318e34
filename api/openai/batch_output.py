"""Writes what a batch has come to: its output file, its error file, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from tempfile import TemporaryFile
from typing import BinaryIO

from api.openai import batch_lines, files
from api.openai.batch_lines import Line
from api.services import Services
from phi4.errors import Phi4Error
from phi4.job import derived_id
from phi4.store import Batch
from phi4.store.batches import COMPLETED, FAILED, REFUSED

#: What became of each line: a mark and a job's id, or an answer.
Noted = Mapping[int, str]


class BatchOutput:
    """The end of batches."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.store

    def write(self, batch: Batch, lines: Iterable[tuple[int, Line]], noted: Noted) -> tuple[str, str]:
        """Write both files, in the order of the lines; gives their ids, '' for one that would be empty."""
        with TemporaryFile() as output, TemporaryFile() as errors:
            for number, line in lines:
                self._write(batch, line, noted.get(number), output, errors)
            return self._keep(batch, output, "output"), self._keep(batch, errors, "errors")

    def end_of(self, batch: Batch, noted: Noted) -> str:
        """Say with which status the batch ends."""
        if batch.cancelling_ms:
            return "cancelled"
        cut = len(noted) < batch.total or any(n[0] == FAILED and self._was_cancelled(n[1:]) for n in noted.values())
        return "expired" if cut and _is_cut_short(batch) else "completed"

    def erase_jobs(self, noted: Noted) -> None:
        """Erase the jobs of its lines: the files have all that they gave."""
        for text in noted.values():
            if text[0] in (COMPLETED, FAILED):
                with suppress(Phi4Error):  # they expire anyway
                    self._store.jobs.delete(text[1:])
                    self._services.blobs.delete_folder(text[1:])

    def _write(self, batch: Batch, line: Line, noted: str | None, output: BinaryIO, errors: BinaryIO) -> None:
        if noted is None or (noted[0] == FAILED and _is_cut_short(batch) and self._was_cancelled(noted[1:])):
            why = "cancelled" if batch.cancelling_ms else "expired"
            error = {"code": f"batch_{why}", "message": f"This request was not done before the batch was {why}."}
            errors.write(batch_lines.written(line.custom_id, None, error))
            return
        if noted[0] == REFUSED:
            response = json.loads(noted[1:])
        else:
            response = batch_lines.answer(self._services, batch, line, self._store.jobs.find(noted[1:]))
        file = output if response["status_code"] == 200 else errors
        file.write(batch_lines.written(line.custom_id, response))

    def _was_cancelled(self, job_id: str) -> bool:
        job = self._store.jobs.find(job_id)
        return job is not None and job.status == "cancelled"

    def _keep(self, batch: Batch, file: BinaryIO, name: str) -> str:
        """Store a file; written again after a crash, it takes the place of the first."""
        if not file.tell():
            return ""
        file.seek(0)
        return files.store(
            self._services,
            file,
            owner=batch.owner,
            filename=f"{batch.id}_{name}.jsonl",
            purpose="batch_output",
            kept_s=batch.files_kept_s,
            file_id=derived_id("file", batch.finalizing_ms, f"{batch.id} {name}"),
        ).id


def _is_cut_short(batch: Batch) -> bool:
    """Whether lines were given up: finalizing begins then, at the wish of its owner or after its day."""
    return bool(batch.cancelling_ms) or batch.finalizing_ms > batch.ends_ms
