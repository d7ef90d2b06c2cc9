"""An adapter version as a folder: its files, its manifest, and the digest that identifies it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from service.errors import AdapterIncompatible
from service.store.documents import read_json
from service.store.layout import CARD, CONFIG, MANIFEST, WEIGHTS
from service.store.problem_types import (
    FEWEST_LABELS,
    PROBLEM_TYPES,
    SINGLE_LABEL,
    ProblemType,
    check_labels,
    check_problem_type,
    check_thresholds,
)
from service.store.weights import Data, check_weights, parse_weights, read_block
from service.wording import describe, shown

TEXT_CLASSIFICATION: Final = "text-classification"
VISUAL_QUESTION_ANSWERING: Final = "visual-question-answering"
MOST_LABELS = 100_000
Task = Literal["text-classification", "visual-question-answering"]


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
    problem_type: Annotated[ProblemType, AfterValidator(check_problem_type)] = SINGLE_LABEL
    labels: Annotated[tuple[str, ...], Field(min_length=1, max_length=MOST_LABELS), AfterValidator(check_labels)]
    thresholds: Annotated[
        tuple[Annotated[float, Field(gt=0, lt=1)], ...] | None,
        AfterValidator(check_thresholds),
        Field(exclude_if=lambda thresholds: thresholds is None),  # so that manifests without them stay what they were
    ] = None
    base: dict[str, BaseRef] = Field(default_factory=dict)
    max_length: Annotated[int, Field(ge=2)] | None = None
    metrics: dict[str, dict[str, float]] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    created: datetime = Field(default_factory=lambda: datetime.now(UTC))

    @property
    def digest(self) -> str:
        """``sha256:…`` over everything that decides an answer; metrics, recipe and card are left out."""
        decides = self.model_dump(mode="json", include={"task", "labels", "problem_type", "thresholds", "max_length"})
        decides["files"] = {name: self.files[name] for name in (CONFIG, WEIGHTS)}
        return sha256(json.dumps(decides, sort_keys=True).encode())


@dataclass(frozen=True, slots=True)
class Bundle:
    """One adapter version in memory: its files' bytes, the configuration in one of them, and its manifest."""

    config: Mapping[str, Any]
    files: Mapping[str, Data]
    manifest: Manifest

    @classmethod
    def assemble(cls, config: Mapping[str, Any], weights: Data, manifest: Manifest | None = None, card: str = "") -> Bundle:
        """A bundle from its contents; the manifest, made from the others where there is none, gets every file's sha256.

        Raises :class:`AdapterIncompatible` when the labels cannot be told.
        """
        canonical = canonical_config(config)
        files: dict[str, Data] = {CONFIG: (json.dumps(canonical, indent=2, sort_keys=True) + "\n").encode(), WEIGHTS: weights}
        if card:
            files[CARD] = card.encode()
        manifest = manifest or default_manifest(canonical, weights)
        sums = {name: sha256(data) for name, data in files.items()}
        return cls(canonical, files, manifest.model_copy(update={"files": sums}))

    @classmethod
    def parse(cls, config: bytes, weights: Data, manifest: bytes | None = None, card: str = "") -> Bundle:
        """A bundle from files that came from outside.

        Raises :class:`AdapterIncompatible` when one cannot be read, or is not the one that the manifest describes.
        """
        try:
            described = parse_manifest(manifest) if manifest is not None else None
            bundle = cls.assemble(parse_config(config), weights, described, card)
        except AdapterIncompatible:
            check_files(config, weights, manifest)
            raise
        for name, expected in (described.files if described else {}).items():
            if bundle.manifest.files.get(name, expected) != expected:
                raise AdapterIncompatible([f"{name} is not the file that {MANIFEST} describes"])
        return bundle

    @property
    def weights(self) -> Data:
        """The bytes of the safetensors file."""
        return self.files[WEIGHTS]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The weights' tensors by name; raises :class:`AdapterIncompatible` for an unreadable file."""
        return parse_weights(self.weights)

    @property
    def contents(self) -> dict[str, Data]:
        """The folder's files in the order to write them: the manifest comes last."""
        return {**self.files, MANIFEST: (self.manifest.model_dump_json(indent=2) + "\n").encode()}


def sha256(data: Data) -> str:
    """``sha256:`` and the hexadecimal digest of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def canonical_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with its lists of module names sorted: PEFT writes them in the order of a set."""
    unordered = ("target_modules", "modules_to_save")
    return {
        key: sorted(value) if key in unordered and isinstance(value, list) and all(isinstance(v, str) for v in value) else value
        for key, value in config.items()
    }


def check_files(config: bytes, weights: Data, manifest: bytes | None) -> None:
    """Raise :class:`AdapterIncompatible` with the faults of all files that cannot be read, each for itself."""
    faults: list[str] = []
    for check in (
        lambda: parse_manifest(manifest) if manifest is not None else None,
        lambda: parse_config(config),
        lambda: check_weights(weights),
    ):
        try:
            check()
        except AdapterIncompatible as error:
            faults += error.faults
    if faults:
        raise AdapterIncompatible(faults)


def parse_config(data: bytes) -> dict[str, Any]:
    """The JSON object in ``adapter_config.json``.

    Raises :class:`AdapterIncompatible` when the bytes are anything else.
    """
    config = read_json(data, CONFIG)
    if not isinstance(config, dict):
        raise AdapterIncompatible([f"{CONFIG} is not a JSON object"])
    return config


def parse_manifest(data: bytes) -> Manifest:
    """The manifest in ``data``; raises :class:`AdapterIncompatible` naming each wrong field."""
    described = read_json(data, f"{MANIFEST}:")
    try:
        return Manifest.model_validate(described)
    except ValidationError as error:
        faults = [f"{MANIFEST}: {fault}" for fault in describe(error.errors(include_url=False))]
        raise AdapterIncompatible(faults) from None


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle's folder, whole, and check it against its manifest; without one it is a plain PEFT adapter.

    Raises :class:`AdapterIncompatible` when a file is missing or is not what the manifest says.
    """
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise AdapterIncompatible([f"no {name} in the bundle" for name in missing])
    described, card = folder / MANIFEST, folder / CARD
    return Bundle.parse(
        (folder / CONFIG).read_bytes(),
        read_block(folder / WEIGHTS),
        described.read_bytes() if described.is_file() else None,
        card.read_bytes().decode("utf-8", "replace") if card.is_file() else "",
    )


def default_manifest(config: Mapping[str, Any], weights: Data) -> Manifest:
    """A manifest for an adapter that came without one: labels from its configuration, or ``LABEL_0…`` by its head.

    Raises :class:`AdapterIncompatible` when neither labels nor their number can be told, or the problem type is unknown.
    """
    problem_type: ProblemType = SINGLE_LABEL
    if config.get("task_type") == "VQA":
        answers = config.get("answers")
        labels = tuple(answers) if isinstance(answers, list) and all(isinstance(a, str) for a in answers) else ()
        task: Task = VISUAL_QUESTION_ANSWERING
    else:
        labels, task, problem_type = _classifier_labels(config, weights), TEXT_CLASSIFICATION, _problem_type(config)
    try:
        return Manifest(task=task, problem_type=problem_type, labels=labels)
    except ValidationError:
        fewest = FEWEST_LABELS[problem_type]
        raise AdapterIncompatible(
            [f"{MANIFEST} is missing, and neither {CONFIG} nor a classifier tells {fewest} to {MOST_LABELS:,} distinct labels"]
        ) from None


def _problem_type(config: Mapping[str, Any]) -> ProblemType:
    """What the configuration says, under transformers' key for it; PEFT writes none, which means one label."""
    said = config.get("problem_type")
    if said is not None and said not in PROBLEM_TYPES:
        raise AdapterIncompatible([f"{CONFIG} has the problem_type {shown(said)}; accepted: {', '.join(PROBLEM_TYPES)}"])
    return cast("ProblemType", said or SINGLE_LABEL)


def _classifier_labels(config: Mapping[str, Any], weights: Data) -> tuple[str, ...]:
    names = config.get("id2label")
    if isinstance(names, dict):
        numbers = [str(number) for number in range(len(names))]
        return tuple(names[number] for number in numbers) if set(names) == set(numbers) else ()
    ends = ("classifier.weight", "classifier.out_proj.weight")
    counts = [tensor.shape[0] for name, tensor in parse_weights(weights).items() if name.endswith(ends) and tensor.shape]
    return tuple(f"LABEL_{i}" for i in range(counts[0])) if len(counts) == 1 and counts[0] <= MOST_LABELS else ()
