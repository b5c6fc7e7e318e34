"""All settings, read once from the environment into one frozen object that names the variable when a value is wrong."""

from __future__ import annotations

import base64
import re
import shlex
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from phi4.job import QUEUES

#: Addresses that only this machine itself can reach.
LOOPBACK = ("127.0.0.1", "::1", "localhost")
#: What browsers send as Origin.
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?")
#: What a message must never show; vLLM's arguments may hold an API key.
_SECRETS = ("PHI4_WEBHOOK_SECRET", "REDIS_URL", "HF_TOKEN", "PHI4_EXTRA_SERVE_ARGS")
#: The model whose code and weights were checked, at the commit at which they were.
MICROSOFTS_MODEL = "microsoft/Phi-4-multimodal-instruct"
PINNED_REVISION = "33e62acdd07cd7d6635badd529aa0a3467bb9c6a"


class SettingsError(ValueError):
    """A setting has a value that cannot be used."""


class Settings(BaseSettings):
    """The service's settings; each field's variable is `PHI4_<NAME>` unless an alias is given."""

    model_config = SettingsConfigDict(
        env_prefix="PHI4_", frozen=True, extra="ignore", populate_by_name=True, allow_inf_nan=False
    )

    # Where the service is
    host: str = "127.0.0.1"
    publish: str = ""  #: the address that a container's port is published on, which callers know instead of `host`
    port: int = Field(8000, ge=0, le=65535, validation_alias=AliasChoices("PORT", "port"))
    metrics_port: int = Field(9108, ge=0, le=65535)  #: 0 serves no metrics
    metrics_host: str = "127.0.0.1"
    redis_url: str = Field("redis://127.0.0.1:6379/0", validation_alias=AliasChoices("REDIS_URL", "redis_url"))
    data_dir: Path = Path(".phi4")
    blobs: str = ""  #: an fsspec URL; by default a folder under data_dir
    allow_anonymous: bool = False
    trusted_proxies: int = Field(0, ge=0, le=10)  #: how many proxies in front of the API speak for the client
    cors_origins: str = ""  #: sites whose pages may call, such as https://app.example.com, separated by commas
    allow_evicting_redis: bool = False

    # What a worker runs
    engine: str = "auto"
    served_name: str = "phi-4-multimodal"
    serve: Literal["all", "vision", "speech"] = "all"
    queues: str = ""  #: explicit list, separated by commas; of those that the worker can serve
    max_in_flight: int = Field(64, ge=1)
    cpu_threads: int = Field(0, ge=0)  #: 0: as many as there are cores
    side_workers: int = Field(0, ge=0)  #: that `phi4 up` runs; 0: one for each four cores, at most 8
    api_processes: int = Field(0, ge=0)  #: that share a port with `phi4 up`; 0: one for each eight cores, at most 4

    # The model of the vllm and transformers engines; pydantic keeps names that start with "model_" for itself
    checkpoint: str = Field(MICROSOFTS_MODEL, min_length=1, validation_alias=AliasChoices("PHI4_MODEL_ID"))
    checkpoint_revision: str = Field(
        PINNED_REVISION, min_length=1, validation_alias=AliasChoices("PHI4_MODEL_REVISION")
    )
    max_model_len: int = Field(16_384, ge=1_024, le=131_072)
    tensor_parallel_size: int = Field(1, ge=1, le=8, validation_alias=AliasChoices("TENSOR_PARALLEL_SIZE"))
    stock_model: bool = False  #: vLLM's own model class and scheduling instead of what this project makes faster
    fp8: Literal["none", "weights", "cache", "all"] = "none"  #: what vLLM keeps in 8 bits: faster, and less exact
    extra_serve_args: str = Field("", repr=False)  #: what vLLM's own command line takes, as a shell would split it
    hf_token: str = Field("", repr=False, validation_alias=AliasChoices("HF_TOKEN"))

    # How jobs are treated
    job_window: int = Field(32, ge=1)
    lease_seconds: float = Field(15.0, ge=0.5)
    heartbeat_seconds: float = Field(0.5, gt=0)
    reap_seconds: float = Field(1.0, gt=0)
    part_tries: int = Field(3, ge=1)
    max_deaths: int = Field(3, ge=1)
    drain_seconds: float = Field(60.0, ge=0)
    hang_seconds: float = Field(60.0, gt=0)  #: after that, what pays no heed to its stop flag costs the worker
    reject_unserved: bool = False
    result_cache: bool = True  #: a job that asks what an earlier one of its owner did is given that one's result

    # Limits
    max_body_mb: int = Field(200, ge=1)
    max_pixels: int = Field(100_000_000, ge=1)
    max_pages: int = Field(1_000, ge=1)
    max_audio_seconds: float = Field(14_400.0, gt=0)
    max_inputs: int = Field(64, ge=1)
    max_queued_parts: int = Field(100_000, ge=1)
    max_waiting_requests: int = Field(32, ge=0)
    request_seconds: int = Field(600, ge=1, le=86_400)  #: the longest a request in another API's shape may take
    max_slow_clients: int = Field(64, ge=1)  #: that an API process waits for at once while they send or receive
    client_patience_seconds: float = Field(10.0, gt=0)  #: how long a client may keep a thread waiting …
    client_bytes_per_second: int = Field(4_096, ge=1)  #: … and a second more for each so many bytes that it moves
    max_event_streams: int = Field(200, ge=0)  #: open at once in one API process; each holds a thread
    min_free_disk_mb: int = Field(1_024, ge=0)
    fetch_seconds: float = Field(30.0, gt=0)
    allow_hosts: str = ""  #: hosts, separated by commas, that inputs and webhooks may reach although not public

    # Webhooks
    webhook_secret: str = Field("", repr=False)  #: several, the newest first, separated by spaces: each signs
    webhook_seconds: float = Field(15.0, gt=0)
    webhooks_per_host: int = Field(4, ge=1)  #: deliveries to one host and port at once, in all workers together

    otlp_endpoint: str = Field("", validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_ENDPOINT"))  #: "" traces nothing

    log_format: Literal["json", "text"] = "json"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("checkpoint", "checkpoint_revision", "hf_token", mode="before")
    @classmethod
    def _without_space_around(cls, value: object) -> object:
        # A token read from a file ends with a newline, which no HTTP header may hold.
        return value.strip() if isinstance(value, str) else value

    @field_validator("extra_serve_args")
    @classmethod
    def _can_be_split(cls, value: str) -> str:
        try:
            shlex.split(value)
        except ValueError as error:
            raise ValueError(f"cannot be split into arguments: {str(error).lower()}") from None
        return value

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str) -> str:
        if not value.startswith(("redis://", "rediss://")):
            raise ValueError("must start with redis:// or rediss:// (a Valkey server takes redis:// too)")
        try:
            _ = urlsplit(value).port
        except ValueError:  # whose words hold a part of the password
            raise ValueError("cannot be read; characters such as / and @ in a password are percent-encoded") from None
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _standard_secret(cls, value: str) -> str:
        if not all(_can_sign(secret) for secret in value.split()):
            raise ValueError("each must be whsec_ and the base64 of 24 to 64 random bytes (Standard Webhooks)")
        return " ".join(value.split())

    @model_validator(mode="after")
    def _beats_within_the_lease(self) -> Settings:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError("PHI4_HEARTBEAT_SECONDS must be at most half of PHI4_LEASE_SECONDS")
        return self

    @field_validator("queues")
    @classmethod
    def _known_queues(cls, value: str) -> str:
        if unknown := [q for q in _listed(value) if q not in QUEUES]:
            raise ValueError(f"{unknown[0]} is no queue; there are {', '.join(QUEUES)}")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        if wrong := [o for o in _listed(value) if not _ORIGIN.fullmatch(o)]:
            raise ValueError(f"{wrong[0]} is no origin; write a scheme and a host, such as https://app.example.com")
        return value

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """The secrets that sign the webhooks of the owner `local`, the newest first."""
        return tuple(self.webhook_secret.split())

    @property
    def listed_cors_origins(self) -> tuple[str, ...]:
        """The origins named in `cors_origins`."""
        return _listed(self.cors_origins)

    @property
    def is_open(self) -> bool:
        """Whether a service without keys may serve whoever reaches it: this machine, or everybody by explicit wish."""
        return self.allow_anonymous or (self.publish or self.host) in LOOPBACK

    @property
    def listed_queues(self) -> tuple[str, ...]:
        """The queues named in `queues`, in that order."""
        return _listed(self.queues)

    @property
    def blobs_url(self) -> str:
        """The fsspec URL of the blob store."""
        return self.blobs or f"file://{self.data_dir / 'blobs'}"

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """Hosts that inputs and webhooks may reach although they are not public."""
        return frozenset(_listed(self.allow_hosts.lower()))


def _can_sign(secret: str) -> bool:
    kind, _, encoded = secret.partition("_")
    try:
        return kind == "whsec" and 24 <= len(base64.b64decode(encoded, validate=True)) <= 64
    except ValueError:
        return False


def _listed(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def variable_of(field: str) -> str:
    """Name the environment variable behind a field of `Settings`."""
    alias = Settings.model_fields[field].validation_alias if field in Settings.model_fields else None
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"PHI4_{field.upper()}"


def load(**overrides: object) -> Settings:
    """Read the settings from the environment; raises `SettingsError` naming the variable."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise SettingsError(first["msg"].removeprefix("Value error, ")) from None
        place = str(first["loc"][0])
        name = place if place.isupper() else variable_of(place)
        shown = "" if name in _SECRETS else f"={first.get('input')!r}"
        raise SettingsError(f"{name}{shown}: {first['msg'].removeprefix('Value error, ')}") from None
