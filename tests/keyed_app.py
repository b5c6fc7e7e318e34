"""The API's application in this process, over an empty store, with keys of several owners."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from api.app import create_app
from phi4.settings import load
from phi4.store import Store
from tests.conftest import png

JOB: dict[str, Any] = {"type": "ocr", "input": {"data": base64.b64encode(png()).decode(), "filename": "a.png"}}


def make_app(store: Store, folder: Path, **settings: Any) -> Flask:
    """Make the application over a store of a test."""
    url = url_of(store)
    given = {"redis_url": url, "data_dir": folder, "metrics_port": 0, "min_free_disk_mb": 0} | settings
    return create_app(load(**given))


def url_of(store: Store) -> str:
    """Where a test's store is."""
    where = store.client.connection_pool.connection_kwargs
    return f"redis://:{where['password']}@{where['host']}:{where['port']}/{where['db']}"


@dataclass
class Keyed:
    """An application, and clients of it that each have a key."""

    app: Flask
    store: Store
    tokens: dict[str, str]

    def client(self, name: str) -> FlaskClient:
        """A client that sends the key of this name."""
        client = self.app.test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {self.tokens[name]}"
        return client


def keyed(store: Store, folder: Path, **keys: dict[str, Any]) -> Keyed:
    """Make keys by name, each with what is given of owner, admin and limits, and then the application."""
    tokens = {name: store.access.create(name, **({"owner": name} | more))[0] for name, more in keys.items()}
    return Keyed(make_app(store, folder), store, tokens)


def concrete(rule: str, **values: str) -> str:
    """Fill the places of a route."""
    return re.sub(r"<(?:[^<>]*:)?(\w+)>", lambda place: values[place.group(1)], rule)
