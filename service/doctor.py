"""Looks at the machine and the settings for what would slow the server down or keep it from starting."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from service.compute import device_threads
from service.errors import StartupError
from service.settings import Settings

FLAGS = ("avx2", "avx512_bf16", "avx512_vnni", "amx_bf16")  # what the frozen models' arithmetic gains from, by Linux's names
CPUINFO = Path("/proc/cpuinfo")
WAL_RESET = ((3, 7, 0), (3, 51, 2))  # first and last SQLite with the bug of its write-ahead log, sqlite.org/wal.html
FSYNCS, BLOCK = 9, b"x" * 4096
SLOW_FSYNC = 0.05  # seconds; a publish takes about ten
SPACE = 2**30  # bytes
GIB = 2**30

State = Literal["ok", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: a ``failure`` would keep the server from starting, a ``warning`` is worth knowing."""

    what: str
    state: State
    detail: str


def examine(settings: Settings) -> Iterator[Check]:
    """Every check, in the order to print them, each made when its turn comes."""
    yield processor()
    yield threads()
    yield kernels()
    yield sqlite(sqlite3.sqlite_version_info)
    yield from store(settings.adapters_dir)
    yield from models(settings)
    yield port(settings.host, settings.port)
    yield keys(settings)


def processor(cpuinfo: Path = CPUINFO) -> Check:
    """Which of the instructions that matter the processor has."""
    try:
        lines = cpuinfo.read_text("utf-8").splitlines()
    except OSError:
        return Check("processor", "warning", "its instructions cannot be told here")
    has = next((set(line.partition(":")[2].split()) for line in lines if line.startswith(("flags", "Features"))), set())
    listed = ", ".join(f"{flag} {'yes' if flag in has else 'no'}" for flag in FLAGS)
    return Check("processor", "ok" if "avx2" in has else "warning", listed)


def threads() -> Check:
    """The cores that this process may use, and the threads that forwards will."""
    import torch

    cores, used = len(os.sched_getaffinity(0)), device_threads()
    detail = f"{cores} cores, {used} threads for forwards, torch {torch.__version__}"
    if used > cores:
        return Check("threads", "warning", f"{detail}: more threads than cores make every forward slower; unset OMP_NUM_THREADS")
    return Check("threads", "ok", detail)


def kernels() -> Check:
    """Whether the C kernels were built, and for all of the processor's instructions."""
    from service.models import kernels

    if kernels.available and kernels.level == kernels.highest:
        return Check("kernels", "ok", f"built, level {kernels.level}")
    if kernels.available:
        slower = f"built for level {kernels.level}, the processor has {kernels.highest}: forwards are slower than they could be"
        return Check("kernels", "warning", f"{slower}; install a newer GCC, then this package anew")
    return Check(
        "kernels", "warning", "not built, so torch does their work, slower; install a C compiler, then this package anew"
    )


def sqlite(version: tuple[int, ...]) -> Check:
    """Whether SQLite is one whose write-ahead log can corrupt a database."""
    shown = ".".join(map(str, version))
    if WAL_RESET[0] <= version <= WAL_RESET[1]:
        return Check(
            "sqlite", "warning", f"{shown} can corrupt a database in WAL mode, which Quickchange does not use; do not turn it on"
        )
    return Check("sqlite", "ok", shown)


def store(folder: Path) -> Iterator[Check]:
    """Whether adapters can be written to their folder, or to where it would be made; how long that takes, and the space left."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        seconds = fsync_seconds(there)
    except OSError:
        yield Check("adapters folder", "failure", f"QUICKCHANGE_ADAPTERS_DIR={folder}: not a folder that can be read and written")
        return
    yield Check("adapters folder", "ok", str(folder) if there == folder.absolute() else f"{folder}, which will be made")
    yield Check(
        "fsync", "ok" if seconds < SLOW_FSYNC else "warning", f"{seconds * 1e3:.1f} ms; publishing a version takes about ten"
    )
    free = shutil.disk_usage(there).free
    yield Check("free space", "ok" if free >= SPACE else "warning", f"{free / GIB:.1f} GiB")


def fsync_seconds(folder: Path) -> float:
    """The median time to make a small write durable; raises :class:`OSError` when the folder takes none."""
    taken = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(FSYNCS):
            file.write(BLOCK)
            file.flush()
            start = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def models(settings: Settings) -> Iterator[Check]:
    """Whether the three frozen models are here and can be read; none is downloaded."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client
    import torch

    from service.models.base_weights import load_base
    from service.models.image_encoder import load_image_encoder
    from service.models.sentence_encoder import load_sentence_encoder
    from service.models.sources import is_hub_id

    cpu = torch.device("cpu")
    base, image, sentence = settings.base_model, settings.image_encoder, settings.sentence_encoder
    yield _model("base model", base, partial(load_base, base), may_download=is_hub_id(base))
    yield _model(
        "image encoder",
        image,
        partial(load_image_encoder, image, cpu),
        may_download=is_hub_id(image) and image.startswith("clip:"),
    )
    yield _model("sentence encoder", sentence, partial(load_sentence_encoder, sentence, cpu), may_download=is_hub_id(sentence))


def _model(what: str, name: str, load: Callable[[], object], *, may_download: bool) -> Check:
    try:
        load()
    except StartupError as error:
        if may_download:
            return Check(what, "warning", f"{name} is not on this machine; the server would ask a hub for it when it starts")
        return Check(what, "failure", str(error))
    return Check(what, "ok", name)


def port(host: str, number: int) -> Check:
    """Whether the server could listen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, number), family=family).close()
    except OSError:
        return Check(
            "port", "failure", f"{host}:{number} is taken, or not this machine's; set QUICKCHANGE_PORT or QUICKCHANGE_HOST"
        )
    return Check("port", "ok", f"{host}:{number} is free")


def keys(settings: Settings) -> Check:
    """Whether a public address has keys, and their file can be read."""
    file = settings.api_keys_file
    if file is not None and not (file.is_file() and os.access(file, os.R_OK)):
        return Check("keys", "failure", f"QUICKCHANGE_API_KEYS_FILE={file}: no readable file there")
    if file is None and settings.is_public and not settings.insecure:
        return Check(
            "keys", "failure", f"QUICKCHANGE_HOST={settings.host} is reachable from outside; set QUICKCHANGE_API_KEYS_FILE"
        )
    if file is None:
        return Check(
            "keys", "warning" if settings.is_public else "ok", f"none: whoever reaches {settings.host} may change adapters"
        )
    return Check("keys", "ok", str(file))
