"""The service cannot do now what it should: its store, its disk, its workers."""

from __future__ import annotations

from phi4.errors.base import Phi4Error


class ServiceError(Phi4Error):
    """The service failed on its own side."""

    retryable = True


class StoreUnavailable(ServiceError):
    """The job store does not answer; try again in a moment."""

    code = "store_unavailable"


class BlobsUnavailable(ServiceError):
    """The blob store does not answer; try again in a moment."""

    code = "blobs_unavailable"


class UnsuitableBlobs(ServiceError):
    """The blob store cannot be used."""

    code = "unsuitable_blobs"
    retryable = False


class StorageFull(ServiceError):
    """No room is left to keep inputs and results; try again later."""

    code = "storage_full"


class Unprotected(ServiceError):
    """Strangers could use this service: make a key, or keep it to this machine."""

    code = "unprotected"
    retryable = False


class BlobMissing(ServiceError):
    """A file this job needs is gone from the blob store."""

    code = "blob_missing"
    retryable = False


class BlobTampered(ServiceError):
    """A file this job needs is not the one that was stored: its hash differs."""

    code = "blob_tampered"
    retryable = False


class WorkerLost(ServiceError):
    """The part ended its worker every time it ran alone."""

    code = "worker_lost"
    retryable = False


class DeadlineExceeded(ServiceError):
    """The job did not finish before its deadline (`cancel_after`)."""

    code = "deadline_exceeded"
    retryable = False


class AllPartsFailed(ServiceError):
    """Every part of the job failed."""

    code = "all_parts_failed"
    retryable = False
