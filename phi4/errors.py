"""Every error the service names, as one small tree with stable codes.

    Phi4Error
    ├── RequestError    the request itself is wrong; never becomes a job
    ├── InputError      the caller's file or parameters cannot be worked on
    ├── EngineError     the engine refused, failed, or is gone
    └── ServiceError    the service could not do its part

The docstring of a class is its default message; pass another to say more.
"""

from __future__ import annotations

from typing import Any, ClassVar


class Phi4Error(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "internal_error"
    category: ClassVar[str] = "service"
    #: Whether the same work, tried again unchanged, may succeed.
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None, **details: Any) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.details = details
        super().__init__(self.message)


class RequestError(Phi4Error):
    """The request cannot be accepted."""

    code = "invalid_request"
    category = "request"


class MalformedRequest(RequestError):
    """The request body cannot be parsed."""

    code = "malformed_request"


class InvalidRequest(RequestError):
    """One or more fields are missing or wrong; see `errors`."""


class Unauthorized(RequestError):
    """Send a valid key: `Authorization: Bearer phi4_…`."""

    code = "unauthorized"


class Forbidden(RequestError):
    """This is not for you."""

    code = "forbidden"


class RateLimited(RequestError):
    """This key has made too many requests in the last minute; wait as `Retry-After` says."""

    code = "rate_limited"
    retryable = True


class RequestTimeout(RequestError):
    """The request came too slowly, or too many slow ones are under way; send it again."""

    code = "request_timeout"
    retryable = True


class UnsupportedMedia(RequestError):
    """This kind of file does not belong to this type of job."""

    code = "unsupported_media_type"
    category = "input"


class TooLarge(RequestError):
    """The request is larger than this service accepts."""

    code = "too_large"
    category = "input"


class NotFound(RequestError):
    """There is nothing under this address."""

    code = "not_found"


class Expired(RequestError):
    """The job has expired; its input and result were erased."""

    code = "expired"


class NotFinished(RequestError):
    """The job has not finished yet; poll it, or use `?wait=`."""

    code = "not_finished"


class NoResult(RequestError):
    """The job ended without a result."""

    code = "no_result"


class NotRetryable(RequestError):
    """Only a job that failed or was cancelled can be run again."""

    code = "not_retryable"


class DeliveryUnderWay(RequestError):
    """This webhook is being sent right now; look at the job's deliveries in a moment."""

    code = "delivery_under_way"
    retryable = True


class TooManyStreams(RequestError):
    """Too many event streams are open; try again in a moment, or poll the job with `?wait=`."""

    code = "too_many_streams"


class TooManyWaiting(RequestError):
    """Too many requests wait for their answers; try again in a moment, or submit jobs and poll them."""

    code = "too_many_waiting"
    retryable = True


class UnknownModel(RequestError):
    """There is no such model here."""

    code = "model_not_found"


class FormatUnavailable(RequestError):
    """This result cannot be given in that format."""

    code = "format_unavailable"


class IdempotencyConflict(RequestError):
    """The first request with this Idempotency-Key is still in flight; try again in a moment."""

    code = "idempotency_in_flight"
    retryable = True


class IdempotencyMismatch(RequestError):
    """This Idempotency-Key was used before with a different request."""

    code = "idempotency_mismatch"


class QueueFull(RequestError):
    """Too much work is waiting; try again later."""

    code = "queue_full"
    retryable = True


class NoWorkerForType(RequestError):
    """No live worker serves this type of job."""

    code = "no_worker_for_type"
    retryable = True


class InputError(Phi4Error):
    """The input cannot be worked on."""

    code = "invalid_input"
    category = "input"


class EmptyInput(InputError):
    """The input file is empty."""

    code = "empty_input"


class UnreadableImage(InputError):
    """The image cannot be read: it is damaged, cut short, or not an image."""

    code = "unreadable_image"


class ImageTooLarge(InputError):
    """The image has more pixels than this service accepts; scale it down."""

    code = "image_too_large"


class ImageTooSmall(InputError):
    """The image is too small to hold anything readable."""

    code = "image_too_small"


class UnreadablePdf(InputError):
    """The PDF cannot be read: it is damaged, cut short, or not a PDF."""

    code = "unreadable_pdf"


class EncryptedPdf(InputError):
    """The PDF is protected with a password; remove the protection and send it again."""

    code = "encrypted_pdf"


class PageOutOfRange(InputError):
    """`params.pages` asks for a page the document does not have."""

    code = "page_out_of_range"


class TooManyPages(InputError):
    """The document has more pages than this service accepts; choose some with `params.pages`."""

    code = "too_many_pages"


class UnreadableAudio(InputError):
    """The recording cannot be read: it is damaged, cut short, or not audio."""

    code = "unreadable_audio"


class AudioTooShort(InputError):
    """The recording is shorter than a tenth of a second."""

    code = "audio_too_short"


class AudioTooLong(InputError):
    """The recording is longer than this service accepts; cut it into several jobs."""

    code = "audio_too_long"


class NothingHeard(InputError):
    """Nobody speaks in the recording."""

    code = "nothing_heard"


class PromptTooLong(InputError):
    """The question and its media are longer than the model's context."""

    code = "prompt_too_long"


class TooManyImages(InputError):
    """The question is asked over more images than the engine takes at once."""

    code = "too_many_images"


class UrlForbidden(InputError):
    """The URL does not lead to a public address."""

    code = "url_forbidden"


class FetchFailed(InputError):
    """The input could not be fetched from its URL."""

    code = "fetch_failed"


class EngineError(Phi4Error):
    """The engine failed on this part."""

    code = "engine_failed"
    category = "engine"
    retryable = True


class CannotAnswer(EngineError):
    """This engine cannot answer this."""

    code = "engine_cannot_answer"
    retryable = False


class AnswerLoops(EngineError):
    """The model repeats itself without end."""

    code = "answer_loops"
    retryable = False


class AnswerCut(EngineError):
    """The answer was cut before its JSON ended; give it more `max_tokens`."""

    code = "answer_cut"
    retryable = False


class EngineUnavailable(EngineError):
    """The engine that was asked for cannot be had here; the message says what to set or install."""

    code = "engine_unavailable"
    retryable = False


class EngineDead(EngineError):
    """The engine died; the part goes back to the queue."""

    code = "engine_dead"


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


class Cancelled(Phi4Error):
    """The work was cancelled."""

    code = "cancelled"
    category = "cancelled"


class LeaseLost(Phi4Error):
    """Another attempt owns this work now; this one must not report."""

    code = "lease_lost"
