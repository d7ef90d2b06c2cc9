"""Several adapters of one base model as one: their LoRA through PEFT's weighted merging, their heads by a weighted mean."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from service.errors import AdapterIncompatible
from service.models.base_weights import BaseWeights
from service.models.heads import Head
from service.models.lora import Factors
from service.models.text_adapter import PREFIX, TextAdapter
from service.models.text_classifier import TextClassifier
from service.store.bundle import TEXT_CLASSIFICATION, Bundle, read_bundle
from service.store.layout import CONFIG
from service.store.problem_types import DEFAULT_THRESHOLD, MULTI_LABEL
from service.store.registry import Registry
from training.data import DataError
from training.low_rank import Change

FEWEST = 2
EXACT, SIDE_BY_SIDE = "linear", "cat"
BY_FACTORS = ("ties", "dare_linear", "dare_ties", "magnitude_prune")
BY_CHANGES = ("svd", *(f"{method}_svd" for method in BY_FACTORS))
METHODS = (EXACT, SIDE_BY_SIDE, *BY_CHANGES, *BY_FACTORS)
MERGED = "merged"


@dataclass(frozen=True, slots=True)
class Source:
    """An adapter to merge: what its lineage calls it, its bundle, and its checked tensors."""

    name: str
    bundle: Bundle
    adapter: TextAdapter


@dataclass(frozen=True, slots=True)
class Plan:
    """How to merge: the method, a weight for each adapter, the share of values that survives pruning, the rank to cut to."""

    method: str
    weights: tuple[float, ...]
    density: float
    rank: int | None
    seed: int

    @property
    def prunes(self) -> bool:
        """Whether the method drops values, and so has a density."""
        return self.method.startswith(BY_FACTORS)


def usual_weights(method: str, count: int) -> tuple[float, ...]:
    """Equal weights that sum to 1; 1 for each where the method is TIES, which takes a mean itself."""
    return (1.0 if "ties" in method else 1 / count,) * count


def read_adapter(given: str, adapters_dir: Path) -> tuple[str, Bundle]:
    """The bundle in a folder, or the stored version that NAME, NAME:VERSION or NAME@ALIAS means; with its name."""
    folder = Path(given)
    if (folder / CONFIG).is_file():
        return folder.resolve().name, read_bundle(folder)
    if folder.is_dir() or not adapters_dir.is_dir():
        raise DataError(f"{given}: no {CONFIG} there; accepted: a bundle's folder, or NAME[:VERSION] of one in {adapters_dir}")
    with closing(Registry.open(adapters_dir)) as registry:
        ref = registry.resolve(given)
        return str(ref), registry.read(ref)


def check_source(name: str, bundle: Bundle, classifier: TextClassifier, base_model: str) -> Source:
    """The adapter, checked against the base model as the server checks it; raises :class:`DataError` for any other."""
    manifest = bundle.manifest
    if manifest.task != TEXT_CLASSIFICATION:
        raise DataError(f"{name} answers {manifest.task}; adapters for {TEXT_CLASSIFICATION} can be merged")
    trained_on = manifest.base.get("base_model")
    if trained_on is not None and trained_on.fingerprint != classifier.encoder.fingerprint:
        raise DataError(f"{name} was trained on {trained_on.name}, not on {base_model}; name the base of all by --base-model")
    try:
        return Source(name, bundle, classifier.parse(bundle.config, bundle.tensors, len(manifest.labels)))
    except AdapterIncompatible as error:
        raise DataError(f"{name} does not fit {base_model}: {error}") from None


def check_alike(sources: Sequence[Source]) -> None:
    """Raise :class:`DataError` unless there are two adapters or more, and all have the labels of the first."""
    if len(sources) < FEWEST:
        raise DataError(f"{len(sources)} adapter; a merge takes at least {FEWEST}")
    first = sources[0].bundle.manifest
    for source in sources[1:]:
        other = source.bundle.manifest
        if other.labels != first.labels:
            raise DataError(
                f"{sources[0].name} has the labels {', '.join(first.labels)}; {source.name} has {', '.join(other.labels)}: "
                "heads can be merged only where labels are the same, in the same order"
            )
        if other.problem_type != first.problem_type:
            raise DataError(f"{sources[0].name} is for {first.problem_type}, {source.name} for {other.problem_type}")


def check_plan(plan: Plan, sources: Sequence[Source]) -> None:
    """Raise :class:`DataError` for a plan that cannot be carried out on these adapters."""
    if plan.method not in METHODS:
        raise DataError(f"--method {plan.method}: accepted: {', '.join(METHODS)}")
    if len(plan.weights) != len(sources):
        raise DataError(f"--weights has {len(plan.weights)} numbers for {len(sources)} adapters")
    if not sum(plan.weights) > 0:
        raise DataError(f"--weights sum to {sum(plan.weights):g}; more than 0 is accepted, since heads are averaged by them")
    if plan.prunes and not 0 < plan.density < 1:
        raise DataError(f"--density {plan.density:g}: accepted: more than 0, less than 1")
    if plan.method in BY_FACTORS:
        _check_ranks(plan.method, sources)


def merge_lora(base: BaseWeights, folder: str, sources: Sequence[Source], plan: Plan) -> dict[str, Change]:
    """The merged change of each module, as PEFT computes it on the model in ``folder``.

    ``linear`` and ``cat`` are the exact weighted sum of the changes. PEFT has another ``linear``, which sums the factors:
    its product has cross terms, and makes twice the adapter of two halves of it.
    """
    lora = [_without_own_pooler(source, sources, base) for source in sources]
    if empty := [source.name for source, factors in zip(sources, lora, strict=True) if not factors]:
        raise DataError(f"{empty[0]} has no LoRA to merge, only a head")
    model = _loaded(folder, lora)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        _combine(model, plan, count=len(lora))
    modules = sorted({module for factors in lora for module in factors})
    return {module: _merged(model.get_submodule(f"{PREFIX}{module}")) for module in modules}


def merge_heads(base: BaseWeights, sources: Sequence[Source], weights: Sequence[float]) -> Head:
    """The mean of the heads by the weights; the base model's pooler counts where some bring their own and some do not."""
    shares = [weight / sum(weights) for weight in weights]
    own = any(source.adapter.head.dense for source in sources)
    dense = _mean([_dense(source.adapter, base) for source in sources], shares) if own else None
    return Head(dense, _mean([source.adapter.head.out for source in sources], shares))


def merge_thresholds(sources: Sequence[Source], weights: Sequence[float]) -> tuple[float, ...] | None:
    """The mean of the thresholds of several labels by the weights; None for other problems."""
    first = sources[0].bundle.manifest
    if first.problem_type != MULTI_LABEL:
        return None
    each = [source.bundle.manifest.thresholds or (DEFAULT_THRESHOLD,) * len(first.labels) for source in sources]
    return tuple(sum(w * t for w, t in zip(weights, column, strict=True)) / sum(weights) for column in zip(*each, strict=True))


def _check_ranks(method: str, sources: Sequence[Source]) -> None:
    ranks: dict[str, tuple[str, int]] = {}
    for source in sources:
        for module, pair in source.adapter.factors.items():
            rank = pair.a.shape[0]
            name, known = ranks.setdefault(module, (source.name, rank))
            if rank != known:
                raise DataError(
                    f"{module} has rank {known} in {name}, {rank} in {source.name}; {method} takes equal ranks, {method}_svd any"
                )


def _without_own_pooler(source: Source, sources: Sequence[Source], base: BaseWeights) -> dict[str, Factors]:
    """An adapter's factors; LoRA on the base model's pooler is in the head where another adapter brings a pooler."""
    own = any(other.adapter.head.dense for other in sources)
    return {name: pair for name, pair in source.adapter.factors.items() if not own or name != base.family.dense}


def _dense(adapter: TextAdapter, base: BaseWeights) -> tuple[Tensor, Tensor]:
    """The head's first layer: the adapter's own, or the base model's with the adapter's LoRA."""
    if adapter.head.dense:
        return adapter.head.dense
    weight, bias = base.tensors["pooler.dense.weight"], base.tensors["pooler.dense.bias"]
    pair = adapter.factors.get(base.family.dense)
    return (weight + pair.scaling * pair.b.float().T @ pair.a.float() if pair else weight), bias


def _mean(layers: Sequence[tuple[Tensor, Tensor]], shares: Sequence[float]) -> tuple[Tensor, Tensor]:
    weights, biases = zip(*layers, strict=True)
    return _weighted(weights, shares), _weighted(biases, shares)


def _weighted(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    return torch.stack([share * tensor.float() for share, tensor in zip(shares, tensors, strict=True)]).sum(0)


def _loaded(folder: str, lora: Sequence[Mapping[str, Factors]]) -> Any:
    """The base model with the adapters' LoRA, without their heads: two that save one module PEFT does not merge."""
    from peft import get_peft_model, set_peft_model_state_dict
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging as hub_logging

    hub_logging.set_verbosity_error()
    hub_logging.disable_progress_bar()
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")  # peft asks transformers by an old name
        tuned = get_peft_model(model, _config(lora[0]), adapter_name="0")
        for number, factors in enumerate(lora[1:], 1):
            tuned.add_adapter(str(number), _config(factors))
    for number, factors in enumerate(lora):
        named = {f"{PREFIX}{module}.lora_A.weight": pair.a.float() for module, pair in factors.items()}
        named |= {f"{PREFIX}{module}.lora_B.weight": pair.b.float().T for module, pair in factors.items()}
        set_peft_model_state_dict(tuned, named, adapter_name=str(number))
    return tuned


def _config(factors: Mapping[str, Factors]) -> Any:
    from peft import LoraConfig

    ranks = {module: pair.a.shape[0] for module, pair in factors.items()}
    alphas = {module: pair.scaling * ranks[module] for module, pair in factors.items()}
    most = max(ranks.values())
    return LoraConfig(r=most, lora_alpha=most, target_modules=sorted(factors), rank_pattern=ranks, alpha_pattern=alphas)


def _combine(model: Any, plan: Plan, count: int) -> None:
    options: dict[str, Any] = {"density": plan.density} if plan.prunes else {}
    if plan.method in BY_CHANGES:
        options |= {"svd_rank": plan.rank, "svd_full_matrices": False}
    kind = SIDE_BY_SIDE if plan.method == EXACT else plan.method
    model.add_weighted_adapter([str(i) for i in range(count)], list(plan.weights), MERGED, combination_type=kind, **options)


def _merged(layer: Any) -> Change:
    a, b = layer.lora_A[MERGED].weight.detach(), layer.lora_B[MERGED].weight.detach()
    return Change.product(layer.scaling[MERGED] * b, a)
