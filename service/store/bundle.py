"""An adapter version as a folder: its files, its manifest, and the digest that identifies it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from service.errors import AdapterIncompatible

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MANIFEST = "manifest.json"
CARD = "README.md"

TEXT_CLASSIFICATION = "text-classification"
VISUAL_QUESTION_ANSWERING = "visual-question-answering"
Task = Literal["text-classification", "visual-question-answering"]


def _labels(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) != len(labels):
        raise ValueError("labels must be distinct")
    return labels


class BaseRef(BaseModel):
    """A frozen model that an adapter was trained on: its name, and a hash of its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    fingerprint: str


class Manifest(BaseModel):
    """What the files of a bundle do not say themselves; written last, so a folder without it is no bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    name: str | None = None
    task: Task
    labels: Annotated[tuple[str, ...], Field(min_length=2), AfterValidator(_labels)]
    problem_type: Literal["single_label_classification"] = "single_label_classification"
    base: dict[str, BaseRef] = Field(default_factory=dict)
    max_length: Annotated[int, Field(ge=2)] | None = None
    metrics: dict[str, dict[str, float]] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    created: datetime = Field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Bundle:
    """One adapter version in memory: configuration, the weights file's bytes, manifest and model card."""

    config: dict[str, Any]
    weights: bytes
    manifest: Manifest
    card: str = ""

    @property
    def digest(self) -> str:
        """``sha256:…`` over everything that decides an answer; metrics, recipe and card are left out."""
        behaviour = {
            "config": canonical_config(self.config),
            "weights": sha256(self.weights),
            "task": self.manifest.task,
            "labels": self.manifest.labels,
            "problem_type": self.manifest.problem_type,
            "max_length": self.manifest.max_length,
        }
        return sha256(json.dumps(behaviour, sort_keys=True).encode())

    def files(self) -> dict[str, bytes]:
        """The folder's files in the order to write them: the manifest, with everyone's sha256, comes last."""
        contents = {
            CONFIG: (json.dumps(canonical_config(self.config), indent=2, sort_keys=True) + "\n").encode(),
            WEIGHTS: self.weights,
        }
        if self.card:
            contents[CARD] = self.card.encode()
        sums = {name: sha256(data) for name, data in contents.items()}
        manifest = self.manifest.model_copy(update={"files": sums})
        contents[MANIFEST] = (manifest.model_dump_json(indent=2) + "\n").encode()
        return contents


def sha256(data: bytes) -> str:
    """``sha256:`` and the hexadecimal digest of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def canonical_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with its lists of module names sorted: PEFT writes them in the order of a set."""
    unordered = ("target_modules", "modules_to_save")
    return {
        key: sorted(value) if key in unordered and isinstance(value, list) and all(isinstance(v, str) for v in value) else value
        for key, value in config.items()
    }


def parse_config(data: bytes) -> dict[str, Any]:
    """The JSON object in ``adapter_config.json``.

    Raises :class:`AdapterIncompatible` when the bytes are anything else.
    """
    try:
        config = json.loads(data)
    except (ValueError, RecursionError):
        raise AdapterIncompatible([f"{CONFIG} is not JSON"]) from None
    if not isinstance(config, dict):
        raise AdapterIncompatible([f"{CONFIG} is not a JSON object"])
    return config


def parse_manifest(data: bytes) -> Manifest:
    """The manifest in ``data``; raises :class:`AdapterIncompatible` naming each wrong field."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        faults = [f"{MANIFEST}: {'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors(include_url=False)]
        raise AdapterIncompatible(faults) from None


def read_bundle(folder: Path, *, trusted_sums: bool = True) -> Bundle:
    """Read a bundle's folder, whole, and check each file against the manifest's sha256.

    A folder without a manifest is read as a plain PEFT adapter. ``trusted_sums=False`` skips the comparison.
    Raises :class:`AdapterIncompatible` when a file is missing or is not what the manifest says.
    """
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise AdapterIncompatible([f"no {name} in the bundle" for name in missing])
    contents = {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS)}
    card = folder / CARD
    config = parse_config(contents[CONFIG])
    manifest_file = folder / MANIFEST
    if manifest_file.is_file():
        manifest = parse_manifest(manifest_file.read_bytes())
    else:
        manifest = default_manifest(config, contents[WEIGHTS])
    if trusted_sums:
        wrong = [name for name, data in contents.items() if manifest.files.get(name, sha256(data)) != sha256(data)]
        if wrong:
            raise AdapterIncompatible([f"{name} is not the file that its manifest describes" for name in wrong])
    return Bundle(config, contents[WEIGHTS], manifest, card.read_text("utf-8") if card.is_file() else "")


def parse_weights(data: bytes) -> dict[str, Tensor]:
    """The named tensors in the bytes of a safetensors file; raises :class:`AdapterIncompatible` for anything else."""
    try:
        return load_tensors(data)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError):
        raise AdapterIncompatible([f"{WEIGHTS} is not a readable safetensors file"]) from None


def default_manifest(config: dict[str, Any], weights: bytes) -> Manifest:
    """A manifest for an adapter that came without one: labels from its configuration, or ``LABEL_0…`` by its head.

    Raises :class:`AdapterIncompatible` when neither labels nor their number can be told.
    """
    if config.get("task_type") == "VQA":
        answers = config.get("answers")
        labels = tuple(answers) if isinstance(answers, list) and all(isinstance(a, str) for a in answers) else ()
        task: Task = VISUAL_QUESTION_ANSWERING
    else:
        labels, task = _classifier_labels(config, weights), TEXT_CLASSIFICATION
    try:
        return Manifest(task=task, labels=labels)
    except ValidationError:
        raise AdapterIncompatible(
            [f"{MANIFEST} is missing, and neither {CONFIG} nor a classifier tells two or more distinct labels"]
        ) from None


def _classifier_labels(config: dict[str, Any], weights: bytes) -> tuple[str, ...]:
    names = config.get("id2label")
    if isinstance(names, dict) and all(key.isdigit() for key in names):
        return tuple(str(names[key]) for key in sorted(names, key=int))
    ends = ("classifier.weight", "classifier.out_proj.weight")
    counts = [tensor.shape[0] for name, tensor in parse_weights(weights).items() if name.endswith(ends)]
    return tuple(f"LABEL_{i}" for i in range(counts[0])) if len(counts) == 1 else ()
