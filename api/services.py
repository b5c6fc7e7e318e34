"""What the routes of one API process share, built once."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from api.body import Upload
from api.submit import Submit
from api.views import Views
from phi4.blobs import Blobs
from phi4.queue import Tickets, celery_app
from phi4.settings import Settings
from phi4.store import Store


@dataclass(frozen=True, slots=True)
class Services:
    """The collaborators of the routes."""

    settings: Settings
    store: Store
    blobs: Blobs
    tickets: Tickets
    submit: Submit
    views: Views
    #: Requests that wait and event streams hold a thread each; they may never hold the last ones.
    room_to_wait: threading.Semaphore
    room_for_streams: threading.Semaphore
    #: Set when this process was told to end; streams end then, and their readers come back to another process.
    closing: threading.Event

    def stored(self, file_id: str, owner: str) -> Upload:
        """Open an uploaded file of an owner's as an input. Raises `NotFound`, `BlobMissing`."""
        file = self.store.files.get(file_id, owner)
        return Upload(file.filename, self.blobs.open(file.blob))

    @classmethod
    def build(cls, settings: Settings, closing: threading.Event) -> Services:
        """Connect everything. Raises `StoreUnavailable`, `UnsuitableRedis`."""
        store = Store.at(settings.redis_url, allow_evicting=settings.allow_evicting_redis)
        blobs = Blobs(settings.blobs_url, min_free_bytes=settings.min_free_disk_mb << 20)
        tickets = Tickets(celery_app(settings.redis_url))
        return cls(
            settings=settings,
            store=store,
            blobs=blobs,
            tickets=tickets,
            submit=Submit(settings, store, blobs, tickets),
            views=Views(store, blobs),
            room_to_wait=threading.Semaphore(settings.max_waiting_requests),
            room_for_streams=threading.Semaphore(settings.max_event_streams),
            closing=closing,
        )
