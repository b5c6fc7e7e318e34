"""Loads the Lua scripts: each is the keys, the shared prelude and one file from `lua/`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import redis

from phi4.job import Job
from phi4.store.keys import lua_functions


def job_of(record: Sequence[str]) -> Job:
    """Read a job's record as a script replies it: fields and values in turn."""
    return Job.from_record(dict(zip(record[::2], record[1::2], strict=True)))


class Scripts:
    """Runs `lua/<name>.lua` by name; Redis caches each script, and reloads it after a restart."""

    def __init__(self, client: redis.Redis) -> None:
        folder = files("phi4.store") / "lua"
        shared = lua_functions() + "\n" + (folder / "prelude.lua").read_text()
        self._scripts = {
            file.name.removesuffix(".lua"): client.register_script(shared + "\n" + file.read_text())
            for file in folder.iterdir()
            if file.name.endswith(".lua") and file.name != "prelude.lua"
        }

    def run(self, name: str, *arguments: str | bytes | int | float) -> Any:
        """Run one script; its reply is what Redis makes of the Lua value."""
        return self._scripts[name](args=list(arguments))
