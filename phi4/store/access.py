"""Who may use the service: bearer keys, which belong to owners, and the secrets that sign owners' webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import redis

from phi4 import records
from phi4.job import Share
from phi4.params import JobType
from phi4.store.keys import OLD_SECRET_TTL_S, key

#: Who owns the jobs of a service without keys.
LOCAL = "local"
#: An owner's name becomes part of Redis keys.
OWNER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOKEN = re.compile(r"(phi4_[0-9a-f]{12})_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key; 0 sets no limit. Times are Unix milliseconds of Redis' clock, 0 for "not yet"."""

    id: str  #: how the key begins; names it without giving it away
    name: str
    owner: str
    sha256: str
    admin: bool = False
    requests_per_minute: int = 0
    in_flight_pages: int = 0
    in_flight_seconds: int = 0
    created_ms: int = 0
    revoked_ms: int = 0

    def opens_for(self, token: str) -> bool:
        """Whether a token is this key, found out in constant time, and not revoked."""
        return hmac.compare_digest(_hash(token), self.sha256) and not self.revoked_ms

    def share(self, job_type: JobType) -> Share:
        """What all jobs of a type that this key makes may have in flight together."""
        if job_type == "asr":
            return Share(f"{self.id}.sound", self.in_flight_seconds * 1000) if self.in_flight_seconds else Share()
        return Share(f"{self.id}.pages", self.in_flight_pages) if self.in_flight_pages else Share()


def find(keys: Mapping[str, ApiKey], token: str) -> ApiKey | None:
    """Find the key that a token is; unknown, wrong and revoked ones are all the same."""
    shape = _TOKEN.fullmatch(token)
    kept = keys.get(shape.group(1)) if shape else None
    return kept if (kept or _NOBODYS).opens_for(token) and kept else None


class Access:
    """The keys and secrets in the store; they have no time to live."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def create(self, name: str, owner: str, **limits: int | bool) -> tuple[str, ApiKey]:
        """Make a key; returns its token too, which is kept nowhere. `limits` are fields of `ApiKey`."""
        key_id = f"phi4_{secrets.token_hex(6)}"
        token = f"{key_id}_{secrets.token_urlsafe(32)}"
        made = ApiKey(key_id, name, owner, _hash(token), created_ms=self._now_ms(), **cast(Any, limits))
        self._client.hset(key("api_keys"), key_id, json.dumps(asdict(made)))
        return token, made

    def keys(self) -> dict[str, ApiKey]:
        """Read all keys by id, oldest first; revoked ones too, so that revoking the last one opens nothing."""
        kept = cast(dict[str, str], self._client.hgetall(key("api_keys")))
        revoked = cast(dict[str, str], self._client.hgetall(key("revoked_api_keys"))) if kept else {}
        read = (records.read(ApiKey, json.loads(text)) for text in kept.values())
        known = sorted((replace(k, revoked_ms=int(revoked.get(k.id, 0))) for k in read), key=lambda k: k.created_ms)
        return {k.id: k for k in known}

    def revoke(self, key_id: str) -> bool:
        """Revoke a key for ever; False when it is not known."""
        if not self._client.hexists(key("api_keys"), key_id):
            return False
        self._client.hsetnx(key("revoked_api_keys"), key_id, str(self._now_ms()))
        return True

    def webhook_secret(self, owner: str) -> str:
        """Give the secret that signs an owner's webhooks; made when there is none."""
        self._client.set(key("webhook_secret", owner), _new_secret(), nx=True)
        return cast(str, self._client.get(key("webhook_secret", owner)))

    def rotate_webhook_secret(self, owner: str) -> str:
        """Replace an owner's secret; the one before signs beside the new one for a day."""
        new, name = _new_secret(), key("webhook_secret", owner)
        if before := cast(str | None, self._client.set(name, new, get=True)):
            self._client.set(key("old_webhook_secret", owner), before, ex=OLD_SECRET_TTL_S)
        return new

    def webhook_secrets(self, owner: str) -> list[str]:
        """List the secrets that sign an owner's webhooks now, the newest first; none when the owner never had one."""
        found = cast(
            list[str | None], self._client.mget(key("webhook_secret", owner), key("old_webhook_secret", owner))
        )
        return [secret for secret in found if secret]

    def _now_ms(self) -> int:
        seconds, microseconds = self._client.time()
        return seconds * 1000 + microseconds // 1000


def _hash(token: str) -> str:
    # Tokens are 256 random bits: there is nothing to guess, so a slow hash would only make every request slow.
    return hashlib.sha256(token.encode()).hexdigest()


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


#: Compared with when there is no such key, so that the answer takes as long.
_NOBODYS = ApiKey("", "", "", _hash(""))
