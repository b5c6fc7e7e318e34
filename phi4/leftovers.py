"""Erases what a job's end leaves no use for: the files of its run, and its input where that is kept no longer."""

from __future__ import annotations

from phi4.blobs import Blobs
from phi4.job import Job
from phi4.store import Store


def erase(job: Job, store: Store, blobs: Blobs) -> None:
    """Erase what a job that ended leaves. Raises `BlobsUnavailable`; the reaper tries again, and after a crash too."""
    blobs.delete_folder(job.scratch)
    if job.input_retention == "until_done":
        for blob in job.input_blobs:
            blobs.delete(blob)
    store.work.erased(job.id, job.attempts)
