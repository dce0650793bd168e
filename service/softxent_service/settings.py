"""Settings: one declaration for flags, environment and documentation."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from softxent_client.wire import Limits
from softxent_service.runtime_tuning import processors

ENV_PREFIX = "SOFTXENT_"

_DEFAULTS = Limits()


def _rooted(path: str | None) -> str | None:
    if path is not None and (not path.startswith("/") or path.endswith("/")):
        raise ValueError("a base path begins with / and does not end with one")
    return path


def _postgresql(url: str | None) -> str | None:
    # The message shows nothing of it: it may hold a password.
    told = ValueError("it is not of the form postgresql://user:password@host:port/name")
    if url is not None:
        parts = urlsplit(url)
        try:
            _ = parts.port
        except ValueError:
            raise told from None
        if parts.scheme != "postgresql":
            raise told
    return url


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Settings(BaseSettings):
    """Settings of the service; each field is a flag of `serve` and a variable `SOFTXENT_...`."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(
        default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one."
    )
    uds: Path | None = Field(
        default=None, description="Unix-domain socket to listen on, in place of host and port."
    )
    tls_certificate: Path | None = Field(
        default=None, description="PEM file with the certificate chain; HTTPS in place of HTTP."
    )
    tls_key: Path | None = Field(
        default=None, description="PEM file with the certificate's private key, unencrypted."
    )
    base_path: Annotated[str | None, AfterValidator(_rooted)] = Field(
        default=None, description="What paths of requests may begin with, as /softxent."
    )
    page: bool = Field(default=True, description="Serve the page for browsers at /.")
    shared_memory: bool = Field(
        default=False,
        description="Let clients of this machine keep tensors in shared memory.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Processes on the same address; all limits hold for each of them.",
    )
    threads: int = Field(
        default_factory=processors,
        ge=1,
        le=1024,
        description="Kernel threads, divided among the workers.",
    )
    max_concurrent_kernels: int = Field(
        default=1, ge=1, description="Large batches that are inside a kernel at one time."
    )
    max_concurrent_calls: int = Field(
        default=8, ge=1, description="Large calls decoded, evaluated in turns or encoded at a time."
    )
    connections: int = Field(
        default=4096, ge=1, description="Most open connections; further ones are refused."
    )
    max_queued_calls: int = Field(
        default=256, ge=0, description="Most large calls that wait for their time."
    )
    memory_bytes: int = Field(
        default=2 << 30,
        ge=1 << 20,
        description="Most bytes of bodies, batches and answers of all calls together.",
    )
    kept_bytes: int = Field(
        default=512 << 20,
        ge=0,
        description="Most bytes of buffers kept between calls; they count as calls' memory does.",
    )
    timeout_seconds: float = Field(
        default=60.0, gt=0, description="Time of a call that does not ask for one, in seconds."
    )
    longest_timeout_seconds: float = Field(
        default=600.0, gt=0, description="Longest time that a call may ask for, in seconds."
    )
    binary_bytes: int = Field(
        default=_DEFAULTS.binary_bytes, ge=1, description="Largest binary body, in bytes."
    )
    json_bytes: int = Field(
        default=_DEFAULTS.json_bytes, ge=1, description="Largest JSON body, in bytes."
    )
    tensors: int = Field(default=_DEFAULTS.tensors, ge=1, description="Most tensors in a body.")
    header_bytes: int = Field(
        default=_DEFAULTS.header_bytes,
        ge=1,
        description="Largest header of a binary body, in bytes.",
    )
    json_depth: int = Field(
        default=_DEFAULTS.json_depth, ge=3, description="Deepest nesting of a JSON body."
    )
    request_head_bytes: int = Field(
        default=64 << 10,
        ge=1024,
        description="Largest request line and headers together, in bytes.",
    )
    body_idle_seconds: float = Field(
        default=30.0, gt=0, description="Longest silence while a body arrives, in seconds."
    )
    body_bytes_per_second: int = Field(
        default=16 << 10,
        ge=1,
        description="Least rate of a body, which may be late by body_idle_seconds.",
    )
    transport: Annotated[Literal["bulk", "plain"], BeforeValidator(str.lower)] = Field(
        default="bulk",
        description="How bodies are received: large ones into their own memory, or all by uvicorn.",
    )
    keep_alive_seconds: int = Field(
        default=75, ge=1, description="How long an idle connection is kept, in seconds."
    )
    drain_seconds: float = Field(
        default=0.0,
        ge=0,
        description="How long a stop still takes new requests while it says it is not ready.",
    )
    shutdown_seconds: int = Field(
        default=30, ge=0, description="How long a stop waits for requests in progress, in seconds."
    )
    keys_file: Path | None = Field(
        default=None,
        description="File of keys that are let in, one a line as `softxent key` prints them.",
    )
    keys: str | None = Field(
        default=None, description="Such lines themselves, with newlines or semicolons between."
    )
    insecure: bool = Field(
        default=False, description="Listen where others can reach it although there are no keys."
    )
    cors_origins: str | None = Field(
        default=None,
        description="Origins of web pages that may call, with commas between; * for all.",
    )
    metrics_directory: Path | None = Field(
        default=None,
        description="Where processes that share a port leave counts for each other.",
    )
    otlp_endpoint: str | None = Field(
        default=None, description="Where traces go to, such as http://127.0.0.1:4318 (OTLP/HTTP)."
    )
    trace_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of requests traced of those whose caller has not decided.",
    )
    log_format: Annotated[Literal["auto", "json", "text"], BeforeValidator(str.lower)] = Field(
        default="auto", description="JSON or text; auto is text on a terminal."
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], BeforeValidator(str.lower)
    ] = Field(default="info", description="Least severe message that is logged.")

    data: Path = Field(
        default=Path("softxent-data"),
        description="Directory of what is kept: records of jobs and, by default, their arrays.",
    )
    roots: str | None = Field(
        default=None,
        description="URLs below which jobs read and write, file:// or s3://, separated by commas;"
        " none: arrays in the data directory.",
    )
    database: Annotated[str | None, AfterValidator(_postgresql)] = Field(
        default=None,
        description="URL of the records of jobs, postgresql://; none: SQLite in data.",
    )
    job_runner: Annotated[Literal["here", "elsewhere"], BeforeValidator(str.lower)] = Field(
        default="here",
        description="Whether this process runs jobs too, or only softxent runner does.",
    )
    runner_id: str = Field(
        default="local",
        min_length=1,
        max_length=100,
        description="Name of a runner, which no other has; it goes on with what it left half done.",
    )
    running_jobs: int = Field(
        default=2, ge=1, le=1024, description="Jobs that one runner runs at a time."
    )
    queued_jobs: int = Field(
        default=10_000, ge=1, description="Most jobs that wait to be run; further ones are refused."
    )
    dask_scheduler: str | None = Field(
        default=None,
        description="Dask scheduler that jobs run on, tcp://host:port; none: threads here.",
    )
    block_bytes: int = Field(
        default=64 << 20, ge=1 << 10, description="Logits of a block of a job, in bytes, at most."
    )

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key are given together or not at all")
        return self

    @model_validator(mode="after")
    def _only_here(self) -> Self:
        if self.shared_memory and not self.uds and not is_loopback(self.host):
            raise ValueError("shared_memory is for this machine: listen on loopback or with uds")
        if self.shared_memory and self.workers > 1:
            raise ValueError("shared_memory is registered with one process: set workers to 1")
        return self

    @property
    def worker_threads(self) -> int:
        """Return how many kernel threads each worker has."""
        return max(1, self.threads // self.workers)

    @property
    def root_urls(self) -> list[str]:
        """Return the URLs below which jobs read and write."""
        if self.roots is None:
            return [f"file://{quote(str(self.data.absolute() / 'arrays'))}"]
        return [url.strip() for url in self.roots.split(",") if url.strip()]

    @property
    def limits(self) -> Limits:
        """Return the ceilings that bodies are checked against."""
        return Limits(
            binary_bytes=self.binary_bytes,
            json_bytes=self.json_bytes,
            tensors=self.tensors,
            header_bytes=self.header_bytes,
            json_depth=self.json_depth,
        )
