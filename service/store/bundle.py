"""An adapter version as a folder: its files, its manifest, and the digest that identifies it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from service.errors import AdapterIncompatible
from service.store.config import canonical_config, labels_in, parse_config, problem_type_in
from service.store.documents import read_json
from service.store.images import image_faults
from service.store.layout import CARD, CONFIG, IMAGES, MANIFEST, WEIGHTS
from service.store.problem_types import (
    FEWEST_LABELS,
    MOST_LABELS,
    SINGLE_LABEL,
    ProblemType,
    check_labels,
    check_problem_type,
    check_thresholds,
)
from service.store.weights import Data, check_weights, parse_weights, read_block
from service.wording import describe

NO_IMAGES: Final[Mapping[str, bytes]] = {}
TEXT_CLASSIFICATION: Final = "text-classification"
VISUAL_QUESTION_ANSWERING: Final = "visual-question-answering"
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
        """``sha256:…`` over everything that decides an answer; metrics, recipe, card and images are left out."""
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
    def assemble(
        cls,
        config: Mapping[str, Any],
        weights: Data,
        manifest: Manifest | None = None,
        card: str = "",
        images: Mapping[str, bytes] = NO_IMAGES,
    ) -> Bundle:
        """A bundle from its contents; the manifest, made from the others where there is none, gets every file's sha256.

        ``images`` are PNG files by name, of :data:`~service.store.layout.IMAGES`. Raises :class:`AdapterIncompatible`
        when one is not, or when the labels cannot be told.
        """
        if faults := list(image_faults(images)):
            raise AdapterIncompatible(faults)
        canonical = canonical_config(config)
        files: dict[str, Data] = {CONFIG: (json.dumps(canonical, indent=2, sort_keys=True) + "\n").encode(), WEIGHTS: weights}
        if card:
            files[CARD] = card.encode()
        files |= {name: images[name] for name in IMAGES if name in images}
        manifest = manifest or default_manifest(canonical, weights)
        sums = {name: sha256(data) for name, data in files.items()}
        return cls(canonical, files, manifest.model_copy(update={"files": sums}))

    @classmethod
    def parse(
        cls,
        config: bytes,
        weights: Data,
        manifest: bytes | None = None,
        card: str = "",
        images: Mapping[str, bytes] = NO_IMAGES,
    ) -> Bundle:
        """A bundle from files that came from outside.

        Raises :class:`AdapterIncompatible` when one cannot be read, or is not the one that the manifest describes.
        """
        try:
            described = parse_manifest(manifest) if manifest is not None else None
            bundle = cls.assemble(parse_config(config), weights, described, card, images)
        except AdapterIncompatible:
            check_files(config, weights, manifest, images)
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


def check_files(config: bytes, weights: Data, manifest: bytes | None, images: Mapping[str, bytes]) -> None:
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
    faults += image_faults(images)
    if faults:
        raise AdapterIncompatible(faults)


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
        {name: (folder / name).read_bytes() for name in IMAGES if (folder / name).is_file()},
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
        labels, task, problem_type = labels_in(config, weights), TEXT_CLASSIFICATION, problem_type_in(config)
    try:
        return Manifest(task=task, problem_type=problem_type, labels=labels)
    except ValidationError:
        fewest = FEWEST_LABELS[problem_type]
        raise AdapterIncompatible(
            [f"{MANIFEST} is missing, and neither {CONFIG} nor a classifier tells {fewest} to {MOST_LABELS:,} distinct labels"]
        ) from None
