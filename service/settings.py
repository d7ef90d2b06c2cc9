"""Settings of ``quickchange serve``: each is a flag and the environment variable ``QUICKCHANGE_*`` of the same name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ByteSize, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.errors import StartupError
from service.wording import describe

PREFIX = "QUICKCHANGE_"
MIB = 2**20
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Bytes(ByteSize):
    """A number of bytes, read from and shown with a unit."""

    def __str__(self) -> str:
        return self.human_readable().replace(".0", "")


class Settings(BaseSettings):
    """What the server runs with; immutable, read once at start-up."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: Annotated[str, Field(description="Address to listen on. Anything but loopback needs API keys, or --insecure.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 picks a free one.")] = 8000
    base_model: Annotated[
        str, Field(description="The frozen text encoder: minilm (packaged), a folder, or a hub id of a BERT or RoBERTa.")
    ] = "minilm"
    image_encoder: Annotated[
        str,
        Field(
            description="The frozen image encoder: tf_efficientnet_lite0 (packaged) to 2, resnet50, NAME:FILE, or clip:FOLDER."
        ),
    ] = "tf_efficientnet_lite0"
    sentence_encoder: Annotated[
        str, Field(description="The frozen sentence encoder: all-MiniLM-L6-v2 (packaged), a folder, a hub id, or clip:FOLDER.")
    ] = "all-MiniLM-L6-v2"
    device: Annotated[str, Field(description="Where forwards run: auto (a GPU if there is one), cpu, cuda, cuda:1 …")] = "auto"
    dtype: Annotated[
        Literal["auto", "fp32", "bf16", "int8"],
        Field(
            description="What the text encoder computes in: fp32, bf16, int8, or auto: bf16 if it is fast. LoRA is never int8."
        ),
    ] = "fp32"
    adapters_dir: Annotated[Path, Field(description="Folder of the adapter versions; uploads are stored there.")] = Path(
        "adapters"
    )
    registry_url: Annotated[
        str | None,
        Field(
            description="Database of versions and aliases: sqlite:///FILE (registry.db in the adapters' folder), or postgresql://…"
        ),
    ] = None
    store_url: Annotated[
        str | None, Field(description="Where the versions' files are instead: a folder, file:///folder, or s3://bucket/prefix.")
    ] = None
    api_keys_file: Annotated[
        Path | None, Field(description="File of hashed API keys; with it, changing adapters needs a key that has the scope.")
    ] = None
    insecure: Annotated[bool, Field(description="Listen on a public address without any API key.")] = False
    max_batch_tokens: Annotated[
        int, Field(ge=16, description="Tokens of one forward; larger means more throughput and longer waits.")
    ] = 2048
    max_queue_seconds: Annotated[
        float,
        Field(gt=0, description="Seconds of work that may wait, at least a batch; beyond, a request gets 429 at once."),
    ] = 0.1
    max_queue_tokens: Annotated[int, Field(ge=16, description="Tokens that may wait; beyond, a request gets 429 at once.")] = (
        65536
    )
    max_concurrent_requests: Annotated[
        int, Field(ge=1, description="Rows that may be in work at a time; beyond, a request gets 429 at once.")
    ] = 512
    max_client_batch_size: Annotated[
        int, Field(ge=1, description="Texts times adapters, or questions, that one request may hold.")
    ] = 64
    max_body_bytes: Annotated[int, Field(ge=1024, description="Bytes of a request's body.")] = 10_000_000
    max_adapter_bytes: Annotated[int, Field(ge=1024, description="Bytes of an adapter upload's body.")] = 100_000_000
    max_training_bytes: Annotated[
        int, Field(ge=1024, description="Bytes of the body that asks for a training, data included.")
    ] = 100_000_000
    max_image_pixels: Annotated[int, Field(ge=1, description="Pixels of an image, checked before it is decoded.")] = 40_000_000
    max_text_chars: Annotated[int, Field(ge=1, description="Characters of a text or question.")] = 20_000
    request_timeout: Annotated[
        float, Field(gt=0, description="Seconds in which a request's body must arrive, and then again in which it is answered.")
    ] = 30.0
    drain_timeout: Annotated[float, Field(ge=0, description="Seconds that requests in flight get to finish after SIGTERM.")] = (
        30.0
    )
    max_lora_bytes: Annotated[
        Bytes, Field(ge=1, description="Memory for adapters on the device, such as 2GB; beyond, the least recently used go.")
    ] = Bytes(512 * MIB)
    max_cpu_lora_bytes: Annotated[
        Bytes, Field(ge=0, description="Host memory for checked copies of adapters, which load without the disk; 0 keeps none.")
    ] = Bytes(512 * MIB)
    preloaded_adapters: Annotated[
        str | None, Field(description="Selectors, separated by commas, of adapters that are loaded at start and never dropped.")
    ] = None
    max_lora_rank: Annotated[int, Field(ge=1, le=1024, description="Highest LoRA rank that an adapter may have.")] = 64
    embedding_cache_size: Annotated[
        int, Field(ge=0, description="Images, and as many questions, whose embeddings are kept (5 and 3 kB each).")
    ] = 10_000
    jobs_dir: Annotated[
        Path, Field(description="Folder of the training jobs: their data while they last, and their records.")
    ] = Path("runs/jobs")
    max_training_jobs: Annotated[
        int, Field(ge=0, description="Trainings at a time, each a process of low priority; 0 turns training over HTTP off.")
    ] = 1
    max_waiting_jobs: Annotated[int, Field(ge=1, description="Trainings that may wait; beyond, a request gets 429.")] = 16
    training_threads: Annotated[int, Field(ge=1, description="Threads that one training computes with.")] = 1
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Field(description="Least severe messages to print.")] = (
        "warning"
    )

    @property
    def preloaded(self) -> tuple[str, ...]:
        """The selectors in ``preloaded_adapters``."""
        return tuple(selector for part in (self.preloaded_adapters or "").split(",") if (selector := part.strip()))

    @property
    def is_public(self) -> bool:
        """Whether others than this machine can reach the server."""
        return self.host not in LOOPBACK


def load_settings(**flags: object) -> Settings:
    """Settings from the environment, overridden by the flags that are not None.

    Raises :class:`StartupError` with one line that names each wrong setting and what it would accept.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]  # validated right here
    except ValidationError as error:
        found = error.errors(include_url=False)
        lines = [f"{PREFIX}{str(e['loc'][0]).upper()}={e['input']!s:.80}: {describe([{**e, 'loc': ()}])[0]}" for e in found]
        raise StartupError("; ".join(lines)) from None
