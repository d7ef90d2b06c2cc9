"""What a study trains: every method, rank and set of target modules on every base model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from service.models.base_weights import base_fingerprint
from service.models.sources import PACKAGED_MINILM
from training.data import DataError
from training.text_model import FULL, LORA, Recipe

METHODS = (FULL, LORA)


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of the study: a base model's name, as reports show it, its fingerprint, and the recipe, whatever its seed."""

    base: str
    fingerprint: str
    recipe: Recipe

    @property
    def name(self) -> str:
        """What reports and ``--reference`` call it."""
        how = FULL if self.recipe.method == FULL else f"r={self.recipe.r} {self.recipe.target_modules}"
        return f"{self.base} {how}"

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return self.name.replace(" ", "-").replace("=", "").replace(",", "-").replace("/", "-")

    @property
    def is_full(self) -> bool:
        """Whether all parameters are trained."""
        return self.recipe.method == FULL


@dataclass(frozen=True, slots=True)
class Grid:
    """The choices whose product is trained; learning rates differ by method, and ``scaling`` is lora_alpha / r."""

    bases: Sequence[str]
    methods: Sequence[str]
    ranks: Sequence[int]
    targets: Sequence[str]
    full_learning_rate: float
    scaling: float
    common: Recipe

    def variants(self) -> list[Variant]:
        """Every variant, by base model.

        Raises :class:`DataError` for a method or rank that there is not, and :class:`StartupError` for such a base model.
        """
        if unknown := sorted(set(self.methods) - set(METHODS)):
            raise DataError(f"--method {unknown[0]}: no such method; accepted: {', '.join(METHODS)}")
        if wrong := [rank for rank in self.ranks if rank < 1]:
            raise DataError(f"--rank {wrong[0]}: not a rank; accepted: whole numbers from 1")
        bases = list(dict.fromkeys(self.bases))
        found = [
            Variant(name, fingerprint, recipe)
            for base, name in zip(bases, shown_names(bases), strict=True)
            for fingerprint in [base_fingerprint(base)]
            for method in dict.fromkeys(self.methods)
            for recipe in self._recipes(base, method)
        ]
        return list(dict.fromkeys(found))

    def _recipes(self, base: str, method: str) -> list[Recipe]:
        common = replace(self.common, base_model=base, method=method)
        if method == FULL:
            return [replace(common, learning_rate=self.full_learning_rate)]
        return [
            replace(common, r=rank, lora_alpha=max(1, round(self.scaling * rank)), target_modules=target)
            for target in self.targets
            for rank in self.ranks
        ]


def shown_names(bases: Sequence[str]) -> list[str]:
    """A name for each base model without where it lies on this machine; equal ones are numbered."""
    plain = [PACKAGED_MINILM[0] if base in PACKAGED_MINILM else Path(base).expanduser().resolve().name for base in bases]
    seen = [plain[:place].count(name) for place, name in enumerate(plain)]
    return [name if not before else f"{name}-{before + 1}" for name, before in zip(plain, seen, strict=True)]


def whole_numbers(option: str, text: str) -> list[int]:
    """The whole numbers in a list with commas; raises :class:`DataError` naming the option."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise DataError(f"{option} {text}: accepted: whole numbers with commas, such as 1,8,64") from None
