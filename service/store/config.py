"""``adapter_config.json``: read, in one order, and what it says of the labels where there is no manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from service.errors import AdapterIncompatible
from service.store.documents import read_json
from service.store.layout import CONFIG
from service.store.problem_types import MOST_LABELS, PROBLEM_TYPES, SINGLE_LABEL, ProblemType
from service.store.weights import Data, parse_weights
from service.wording import shown


def parse_config(data: bytes) -> dict[str, Any]:
    """The JSON object in ``adapter_config.json``.

    Raises :class:`AdapterIncompatible` when the bytes are anything else.
    """
    config = read_json(data, CONFIG)
    if not isinstance(config, dict):
        raise AdapterIncompatible([f"{CONFIG} is not a JSON object"])
    return config


def canonical_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with its lists of module names sorted: PEFT writes them in the order of a set."""
    unordered = ("target_modules", "modules_to_save")
    return {
        key: sorted(value) if key in unordered and isinstance(value, list) and all(isinstance(v, str) for v in value) else value
        for key, value in config.items()
    }


def problem_type_in(config: Mapping[str, Any]) -> ProblemType:
    """What the configuration says under transformers' key for it; PEFT writes none, which means a single label.

    Raises :class:`AdapterIncompatible` when it is another.
    """
    said = config.get("problem_type")
    if said is not None and said not in PROBLEM_TYPES:
        raise AdapterIncompatible([f"{CONFIG} has the problem_type {shown(said)}; accepted: {', '.join(PROBLEM_TYPES)}"])
    return cast("ProblemType", said or SINGLE_LABEL)


def labels_in(config: Mapping[str, Any], weights: Data) -> tuple[str, ...]:
    """The labels in the configuration, or ``LABEL_0…`` by the size of the classifier; none where neither tells them."""
    names = config.get("id2label")
    if isinstance(names, dict):
        numbers = [str(number) for number in range(len(names))]
        return tuple(names[number] for number in numbers) if set(names) == set(numbers) else ()
    ends = ("classifier.weight", "classifier.out_proj.weight")
    counts = [tensor.shape[0] for name, tensor in parse_weights(weights).items() if name.endswith(ends) and tensor.shape]
    return tuple(f"LABEL_{i}" for i in range(counts[0])) if len(counts) == 1 and counts[0] <= MOST_LABELS else ()
