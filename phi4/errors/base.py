"""What every error of the service has, and the two that end work without a failure."""

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


class Cancelled(Phi4Error):
    """The work was cancelled."""

    code = "cancelled"
    category = "cancelled"


class LeaseLost(Phi4Error):
    """Another attempt owns this work now; this one must not report."""

    code = "lease_lost"
