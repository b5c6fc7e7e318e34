"""Settings come from the environment once; a bad value stops the process and names the variable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from phi4.settings import Settings, SettingsError, load, variable_of

UNPREFIXED = ("PORT", "REDIS_URL", "HF_TOKEN", "TENSOR_PARALLEL_SIZE")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own settings are not looked at."""
    for name in [n for n in os.environ if n.upper().startswith("PHI4_") or n.upper() in UNPREFIXED]:
        monkeypatch.delenv(name)


def test_defaults_hold_without_any_variable() -> None:
    """The service starts with nothing set, on loopback."""
    settings = load()
    assert (settings.host, settings.port, settings.metrics_host) == ("127.0.0.1", 8000, "127.0.0.1")
    assert settings.redis_url == "redis://127.0.0.1:6379/0"
    assert not settings.allow_anonymous
    assert settings.allowed_hosts == frozenset()
    assert settings.heartbeat_seconds < settings.lease_seconds


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "web"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", ""),
        ("PHI4_ALLOW_ANONYMOUS", "perhaps"),
        ("PHI4_SERVE", "everything"),
        ("PHI4_QUEUES", "prepare,infer.vision"),
        ("PHI4_MAX_IN_FLIGHT", "0"),
        ("PHI4_MAX_IN_FLIGHT", "1.5"),
        ("PHI4_CPU_THREADS", "-1"),
        ("PHI4_JOB_WINDOW", "0"),
        ("PHI4_LEASE_SECONDS", "0.1"),
        ("PHI4_LEASE_SECONDS", "nan"),
        ("PHI4_HEARTBEAT_SECONDS", "0"),
        ("PHI4_REAP_SECONDS", "soon"),
        ("PHI4_PART_TRIES", "0"),
        ("PHI4_MAX_DEATHS", "0"),
        ("PHI4_DRAIN_SECONDS", "-1"),
        ("PHI4_MAX_BODY_MB", "200MB"),
        ("PHI4_MAX_PIXELS", "0"),
        ("PHI4_MAX_PAGES", "x"),
        ("PHI4_MAX_AUDIO_SECONDS", "0"),
        ("PHI4_MAX_QUEUED_PARTS", "0"),
        ("PHI4_MIN_FREE_DISK_MB", "-1"),
        ("PHI4_FETCH_SECONDS", "0"),
        ("PHI4_LEASE_SECONDS", "inf"),
        ("PHI4_WEBHOOK_SECONDS", "0"),
        ("PHI4_METRICS_PORT", "70000"),
        ("PHI4_MODEL_ID", " "),
        ("PHI4_MODEL_REVISION", ""),
        ("PHI4_MAX_MODEL_LEN", "1023"),
        ("PHI4_MAX_MODEL_LEN", "131073"),
        ("PHI4_MAX_MODEL_LEN", "16k"),
        ("TENSOR_PARALLEL_SIZE", "0"),
        ("TENSOR_PARALLEL_SIZE", "9"),
        ("PHI4_TRUSTED_PROXIES", "-1"),
        ("PHI4_CORS_ORIGINS", "https://app.example.com/"),
        ("PHI4_CORS_ORIGINS", "https://a.example,*"),
        ("PHI4_MAX_SLOW_CLIENTS", "0"),
        ("PHI4_CLIENT_PATIENCE_SECONDS", "0"),
        ("PHI4_CLIENT_BYTES_PER_SECOND", "0"),
        ("PHI4_LOG_FORMAT", "xml"),
        ("PHI4_LOG_LEVEL", "loud"),
    ],
)
def test_a_bad_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """The message starts with the variable's name, as it is set in the environment."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refused:
        load()
    assert str(refused.value).startswith(f"{variable}=")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "http://:hunter2@localhost"),
        ("REDIS_URL", ""),
        ("REDIS_URL", "redis://:hunter2/x@localhost:6379/0"),  # a / that is not percent-encoded
        ("REDIS_URL", "redis://[::1"),
        ("PHI4_EXTRA_SERVE_ARGS", "--api-key 'hunter2"),
        ("PHI4_WEBHOOK_SECRET", "hunter2"),
        ("PHI4_WEBHOOK_SECRET", "whsec_!!"),
        ("PHI4_WEBHOOK_SECRET", "whsec_aHVudGVyMg=="),  # too few bytes
    ],
)
def test_a_bad_secret_names_its_variable_and_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """What may hold a password is never printed."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refused:
        load()
    assert str(refused.value).startswith(f"{variable}: ")
    assert not value or value not in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_leases_must_outlive_two_heartbeats() -> None:
    """A lease that runs out between two heartbeats would lose healthy work."""
    with pytest.raises(SettingsError, match="PHI4_HEARTBEAT_SECONDS must be at most half of PHI4_LEASE_SECONDS"):
        load(heartbeat_seconds=10, lease_seconds=15)


def test_a_bad_override_names_the_variable_too() -> None:
    """What a command sets by option is checked like the rest."""
    with pytest.raises(SettingsError, match=r"^PHI4_JOB_WINDOW=0: "):
        load(job_window=0)
    with pytest.raises(SettingsError, match=r"^PORT='x': "):
        load(port="x")


def test_an_override_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line is nearer than the environment."""
    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setenv("PHI4_JOB_WINDOW", "5")
    assert (load().port, load().job_window) == (9000, 5)
    assert (load(port=9001).port, load(job_window=6).job_window) == (9001, 6)


def test_every_variable_named_is_the_one_that_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """`variable_of` and the reading of the environment agree, field by field."""
    other = {"str": "x", "int": "77", "float": "77.5", "bool": "true", "Path": "/x"}
    special = {
        "result_cache": "0",
        "queues": "prepare",
        "redis_url": "rediss://x",
        "serve": "vision",
        "fp8": "all",
        "webhook_secret": "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0",
        "log_format": "text",
        "log_level": "ERROR",
        "heartbeat_seconds": "0.25",
        "max_model_len": "8192",
        "tensor_parallel_size": "2",
        "trusted_proxies": "2",
        "cors_origins": "https://app.example.com",
    }
    for name, field in Settings.model_fields.items():
        before = getattr(load(), name)
        value = special.get(name) or other[getattr(field.annotation, "__name__", "str")]
        with monkeypatch.context() as one:
            one.setenv(variable_of(name), value)
            assert getattr(load(), name) != before, name


def test_the_model_is_microsofts_at_the_pinned_commit() -> None:
    """The variables of the model, and what holds when none of them is set."""
    settings = load()
    assert (settings.checkpoint, settings.max_model_len) == ("microsoft/Phi-4-multimodal-instruct", 16_384)
    assert settings.checkpoint_revision == "33e62acdd07cd7d6635badd529aa0a3467bb9c6a"
    assert (settings.tensor_parallel_size, settings.extra_serve_args, settings.hf_token) == (1, "", "")
    assert [variable_of(f) for f in ("checkpoint", "checkpoint_revision", "tensor_parallel_size", "hf_token")] == [
        "PHI4_MODEL_ID",
        "PHI4_MODEL_REVISION",
        "TENSOR_PARALLEL_SIZE",
        "HF_TOKEN",
    ]


def test_a_token_loses_the_newline_of_its_file_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A printed settings object gives no secret away."""
    monkeypatch.setenv("HF_TOKEN", "hf_s3cret\n")
    assert load().hf_token == "hf_s3cret"
    assert "hf_s3cret" not in repr(load())
    assert "hf_s3cret" not in str(load())


def test_several_secrets_sign_webhooks() -> None:
    """The newest first; a message about a wrong one does not show them."""
    old, new = "whsec_" + "c2VjcmV0" * 4, "whsec_" + "bmV3c2Vj" * 4
    settings = load(webhook_secret=f"  {new} {old}\n")
    assert settings.webhook_secrets == (new, old)
    assert load().webhook_secrets == load(webhook_secret=" ").webhook_secrets == ()
    assert new not in repr(settings)
    with pytest.raises(SettingsError, match=r"^PHI4_WEBHOOK_SECRET: each must be") as refusal:
        load(webhook_secret=f"{new} whsec_short")
    assert "whsec_short" not in str(refusal.value)


def test_hosts_are_read_from_a_list() -> None:
    """Spaces, capitals and empty places do not matter."""
    assert load(allow_hosts=" A.example, 127.0.0.1,,::1 ").allowed_hosts == {"a.example", "127.0.0.1", "::1"}


def test_blobs_lie_in_the_data_folder_unless_told_otherwise(tmp_path: Path) -> None:
    """The folder becomes absolute, so that every process means the same one."""
    assert load(data_dir=tmp_path).blobs_url == f"file://{tmp_path}/blobs"
    assert load(data_dir="here").data_dir == Path.cwd() / "here"
    assert load(data_dir="~/x").data_dir == Path.home() / "x"
    assert load(blobs="s3://bucket/x").blobs_url == "s3://bucket/x"


def test_settings_cannot_be_changed() -> None:
    """They are read once and passed on."""
    with pytest.raises(ValidationError, match="frozen"):
        load().port = 1
