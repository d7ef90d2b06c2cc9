"""Checks adapter versions on disk as an upload is checked: files, digests, and the weights against the frozen models."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from service.errors import AdapterIncompatible, InvalidInput
from service.store.bundle import TEXT_CLASSIFICATION, Bundle, read_bundle
from service.store.layout import CONFIG, MANIFEST, WEIGHTS
from service.store.registry import Registry
from service.store.selector import NAME, VERSION
from service.tasks.lifecycle import AdapterTask
from service.tasks.standalone import text_task, vqa_task


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version's folder, and what it is called; ``is_stored`` if it lies where the server keeps versions."""

    folder: Path
    name: str
    is_stored: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of a version: its task, if that can be told, and every fault."""

    name: str
    folder: Path
    task: str | None
    faults: tuple[str, ...]


def find(named: Sequence[str], adapters_dir: Path) -> list[Candidate]:
    """The versions that are named: by a folder, or as ``NAME`` or ``NAME:VERSION`` of ``adapters_dir``; all of it else.

    Raises :class:`InvalidInput` when there is none under one of the names.
    """
    if not named:
        if not adapters_dir.is_dir():
            raise InvalidInput(f"{adapters_dir}: no such folder; name one with --adapters-dir")
        return _below(adapters_dir)
    found = []
    for given in named:
        name, _, version = given.partition(":")
        stored = adapters_dir / name / version
        below = _below(stored if NAME.fullmatch(name) and stored.is_dir() else Path(given))
        if not below:
            raise InvalidInput(
                f"{given}: no adapter version there; expected a folder of one, or NAME or NAME:VERSION in {adapters_dir}"
            )
        found += below
    return found


def _below(folder: Path) -> list[Candidate]:
    """The version in a folder, or those of the adapter, or of the adapters, that are in it."""
    stored = bool(VERSION.fullmatch(folder.name) and NAME.fullmatch(folder.resolve().parent.name))
    if any((folder / name).is_file() for name in (CONFIG, WEIGHTS, MANIFEST)):
        return [Candidate(folder, f"{folder.resolve().parent.name}:{folder.name}" if stored else str(folder), stored)]
    versions = sorted((inner for inner in _folders(folder) if VERSION.fullmatch(inner.name)), key=lambda inner: int(inner.name))
    if versions:
        return [Candidate(inner, f"{folder.resolve().name}:{inner.name}", True) for inner in versions]
    adapters = sorted(inner for inner in _folders(folder) if NAME.fullmatch(inner.name))
    return [one for adapter in adapters for one in _below(adapter) if one.is_stored]


def _folders(folder: Path) -> list[Path]:
    return [inner for inner in folder.iterdir() if inner.is_dir()] if folder.is_dir() else []


class Models:
    """The frozen models to check adapters against, each loaded when an adapter first needs it."""

    def __init__(self, base_model: str, image_encoder: str, sentence_encoder: str, max_rank: int) -> None:
        self._base_model, self._towers, self._max_rank = base_model, (image_encoder, sentence_encoder), max_rank
        self._tasks: dict[str, AdapterTask] = {}
        self._open = ExitStack()

    def check(self, bundle: Bundle) -> None:
        """Parse, load and try out a version; raises :class:`AdapterIncompatible` with all faults."""
        task = self._task(bundle.manifest.task)
        task.try_out(task.load(task.parse(bundle)))

    def _task(self, name: str) -> AdapterTask:
        if name not in self._tasks:
            # The tasks also answer requests, out of a registry; these are asked for none, so theirs is empty.
            registry = Registry.open(Path(self._open.enter_context(TemporaryDirectory())))
            self._open.callback(registry.close)
            is_text = name == TEXT_CLASSIFICATION
            made = (
                text_task(self._base_model, registry, max_rank=self._max_rank) if is_text else vqa_task(*self._towers, registry)
            )
            self._tasks[name] = made
        return self._tasks[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()


def verify(candidate: Candidate, models: Models | None) -> Finding:
    """Check one version, against ``models`` if there are any; raises :class:`StartupError` when a model cannot be loaded."""
    task = None
    try:
        if candidate.is_stored and not (candidate.folder / MANIFEST).is_file():
            raise AdapterIncompatible([f"no {MANIFEST}: the rest of an interrupted upload, which is not served"])
        bundle = read_bundle(candidate.folder)
        task = bundle.manifest.task
        _ = bundle.tensors
        if models is not None:
            models.check(bundle)
    except AdapterIncompatible as error:
        return Finding(candidate.name, candidate.folder, task, error.faults)
    except OSError:
        return Finding(candidate.name, candidate.folder, task, ("its files cannot be read",))
    return Finding(candidate.name, candidate.folder, task, ())
