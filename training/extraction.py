"""A full checkpoint as adapters of several ranks: what each keeps, what none can carry, and which one is enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.progress import Progress
from torch import Tensor
from transformers import AutoTokenizer

from service.models.base_weights import BaseWeights, load_base
from service.models.sources import locate
from service.models.text_adapter import TextAdapter
from service.models.text_classifier import TextClassifier
from service.models.text_encoder import TextEncoder
from service.tasks.standalone import CPU, MAX_RANK
from training.bundles import halve
from training.checkpoint import KINDS, OPTION, compare, hub_name, kind, read_checkpoint
from training.data import DataError, TextData
from training.distillation import distil
from training.low_rank import Change, Ranks, cut, energy_kept, for_energy, peft_config, peft_tensors, uniform
from training.metrics import HEADLINE
from training.text_measure import CHOOSES, Figures, Measure, text_logits, unmeasured
from training.text_model import tokenise

ALL = "all of these"
Measured = Callable[[TextEncoder, TextAdapter], Figures]
Refine = Callable[[Mapping[str, Any], Mapping[str, Tensor]], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One adapter cut from a checkpoint, as its file stores it; ``figures`` by split, where there is data."""

    name: str
    ranks: Ranks
    energy: float
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    figures: Figures

    @property
    def largest(self) -> int:
        """The highest rank of any layer."""
        return max(self.ranks.values())

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors as stored."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


class Extraction:
    """A checkpoint, its base model, and the changes between them, decomposed once for all ranks."""

    def __init__(self, folder: Path, base_model: str, *, half: bool = True) -> None:
        """Raises :class:`DataError` for a folder that is no classifier fine-tuned from this base model.

        ``half`` stores adapters in float16. :attr:`refine` gets each adapter's configuration and tensors, to improve on them.
        """
        self.base = load_base(base_model, OPTION)
        self.encoder = TextEncoder(self.base, CPU)
        self.checkpoint = read_checkpoint(folder, base_model, self.base)
        self.differences = compare(folder, self.checkpoint, base_model, self.base, self.encoder.targets)
        self.base_model, self._half = base_model, half
        self.refine: Refine = lambda _, tensors: tensors

    @cached_property
    def changes(self) -> dict[str, Change]:
        """The singular values and vectors of every linear layer's change."""
        return {module: Change.of(change) for module, change in self.differences.linear.items()}

    def labels(self, data: TextData | None) -> tuple[str, ...]:
        """The checkpoint's labels; the data's where it has none but ``LABEL_0`` and so on, and as many."""
        unnamed = data is not None and not self.checkpoint.named and len(data.labels) == len(self.checkpoint.labels)
        return data.labels if data is not None and unnamed else self.checkpoint.labels

    def at_rank(self, rank: int, measure: Measured) -> Candidate:
        """The adapter with this rank in every layer."""
        return self._candidate(f"rank {rank}", uniform(self.changes, rank), measure)

    def at_energy(self, energy: float, measure: Measured) -> Candidate:
        """The adapter that keeps this share of the squared change by the smallest ranks, each layer's its own."""
        return self._candidate(f"energy {energy:g}", for_energy(self.changes, energy), measure)

    def full(self, measure: Measured) -> Figures:
        """The figures of the checkpoint itself: its head on its own encoder."""
        return measure(TextEncoder(self.checkpoint.weights, CPU), TextAdapter({}, self.checkpoint.head))

    def refine_on(self, texts: Sequence[str], max_length: int, epochs: int, done: Callable[[int], None]) -> None:
        """Let each adapter be distilled on these texts: trained on towards the logits that the checkpoint gives them."""
        tokenizer = AutoTokenizer.from_pretrained(locate(self.base_model, OPTION))
        rows, pad_id = tokenise(tokenizer, texts, max_length), tokenizer.pad_token_id
        target = text_logits(TextEncoder(self.checkpoint.weights, CPU), TextAdapter({}, self.checkpoint.head), rows, done)
        self.refine = lambda config, tensors: distil(self.base_model, config, tensors, rows, target, pad_id, epochs, done)

    def without(self, kinds: Sequence[str], measure: Measured) -> Figures:
        """The figures of the checkpoint with the base model's own parameters of these kinds."""
        theirs, rest = self.checkpoint.weights.tensors, self.differences.rest
        mixed = {
            name: before if name in rest and kind(name) in kinds else theirs[name] for name, before in self.base.tensors.items()
        }
        weights = BaseWeights(self.base.config, mixed, self.base.fingerprint)
        return measure(TextEncoder(weights, CPU), TextAdapter({}, self.checkpoint.head))

    def _candidate(self, name: str, ranks: Ranks, measure: Measured) -> Candidate:
        factors, family = cut(self.changes, ranks), self.base.family
        config = peft_config(hub_name(self.base_model), factors, saves_pooler=family.pools)
        tensors = self.refine(config, peft_tensors(factors, self.checkpoint.head, family))
        stored = halve(tensors) if self._half else tensors
        adapter = TextClassifier(self.encoder, MAX_RANK).parse(config, stored, len(self.checkpoint.labels))
        return Candidate(name, ranks, energy_kept(self.changes, ranks), config, stored, measure(self.encoder, adapter))


@dataclass(frozen=True, slots=True)
class Found:
    """What one run has found: the figures of the checkpoint, of it without what LoRA cannot carry, and of each candidate.

    ``kept`` says whether the chosen one is within the tolerance; without data nothing was measured, and it is None.
    """

    extraction: Extraction
    full: Figures
    without: dict[str, Figures]
    candidates: list[Candidate]
    chosen: Candidate
    kept: bool | None

    @property
    def headline(self) -> str:
        """The name of the figure that decides."""
        return HEADLINE[self.extraction.checkpoint.problem_type]


def extract(
    extraction: Extraction,
    wanted: Sequence[int] | float,
    tolerance: float,
    measure: Measure | None,
    progress: Progress,
) -> Found:
    """Cut an adapter for each of these ranks, ascending, or one for this share of the energy; score them, and choose one.

    Chosen is the first that loses at most ``tolerance`` of the headline figure on validation, and else the last.
    """
    ranks = list(wanted) if isinstance(wanted, Sequence) else []
    changed = [name for name, share in extraction.differences.shares().items() if share and name in KINDS]
    parts = {**{name: [name] for name in changed}, ALL: changed} if measure is not None and changed else {}
    bar = progress.add_task("decomposing", total=len(extraction.differences.linear))
    progress.advance(bar, len(extraction.changes))
    scored: Measured = unmeasured
    if measure is not None:
        total = (1 + len(parts) + (len(ranks) or 1)) * len(measure)
        progress.update(bar, description="scoring", completed=0, total=total)
        scored, measure.done = measure, lambda rows: progress.advance(bar, rows)
    full = extraction.full(scored)
    without = {name: extraction.without(kinds, scored) for name, kinds in parts.items()}
    if isinstance(wanted, Sequence):
        candidates = [extraction.at_rank(rank, scored) for rank in ranks]
    else:
        candidates = [extraction.at_energy(wanted, scored)]
    if measure is None:
        return Found(extraction, full, without, candidates, candidates[-1], None)
    enough = _smallest(candidates, full, HEADLINE[extraction.checkpoint.problem_type], tolerance)
    return Found(extraction, full, without, candidates, enough or candidates[-1], enough is not None)


def _smallest(candidates: Sequence[Candidate], full: Figures, headline: str, tolerance: float) -> Candidate | None:
    if CHOOSES not in full:
        raise DataError(f"the data has no {CHOOSES} split to choose a rank on")
    lowest = full[CHOOSES][headline] - tolerance
    return next((each for each in candidates if each.figures[CHOOSES][headline] >= lowest), None)
