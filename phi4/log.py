"""Structured logs: one line per event, JSON or text, never inputs or secrets."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

_FIELDS = "phi4_fields"


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class _TextLines(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        given = getattr(record, _FIELDS, {}).items()
        fields = " ".join(f"{name}={_on_one_line(value)}" for name, value in given if value != "")
        return f"{super().format(record)} {fields}".rstrip()


def _on_one_line(value: object) -> str:
    """Spell a value so that it cannot pass for another line, or tell a terminal what to do."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def set_up(log_format: Literal["json", "text"], level: str) -> None:
    """Send this process's logs to standard output in the chosen form."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonLines() if log_format == "json" else _TextLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("celery", "kombu", "amqp", "urllib3", "gunicorn.access", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def log(logger: logging.Logger, event: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Write one event with its fields."""
    logger.log(level, event, extra={_FIELDS: fields})
