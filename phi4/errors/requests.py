"""Requests that are refused: nothing was accepted."""

from __future__ import annotations

from phi4.errors.base import Phi4Error


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
