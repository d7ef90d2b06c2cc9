"""Adapters with random weights, for measurements: how fast they are depends on their shapes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from service.models.text_adapter import PREFIX
from service.models.text_encoder import TextEncoder
from service.store.alias import Target
from service.store.bundle import TEXT_CLASSIFICATION, Bundle, Manifest
from service.store.registry import Registry
from service.store.selector import LIVE

RANK, ALPHA = 8, 16
LABELS = ("negative", "neutral", "positive")
KINDS: Mapping[str, tuple[str, ...]] = {  # PEFT's target modules
    "query and value": ("query", "value"),  # its default for BERT and RoBERTa
    "all linear layers": ("dense", "key", "query", "value"),
}
SERVED = "all linear layers"  # as the shipped adapters are
SPREAD = 0.02


def configuration(kind: str) -> dict[str, Any]:
    """The contents of ``adapter_config.json``."""
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": "made-up",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": list(KINDS[kind]),
    }


def tensors(encoder: TextEncoder, kind: str, seed: int = 0) -> dict[str, Tensor]:
    """The tensors of an adapter for this encoder: LoRA of rank 8, and a head for three labels."""
    generator = torch.Generator().manual_seed(seed)
    worn = {name: target for name, target in encoder.targets.items() if name.rpartition(".")[2] in KINDS[kind]}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, target in worn.items():
        shapes |= {f"{name}.lora_A.weight": (RANK, target.inputs), f"{name}.lora_B.weight": (target.outputs, RANK)}
    shapes |= {f"{encoder.family.out}.weight": (len(LABELS), encoder.hidden), f"{encoder.family.out}.bias": (len(LABELS),)}
    if not encoder.family.pools:
        shapes |= {f"{encoder.family.dense}.weight": (encoder.hidden,) * 2, f"{encoder.family.dense}.bias": (encoder.hidden,)}
    return {PREFIX + name: torch.randn(shape, generator=generator) * SPREAD for name, shape in shapes.items()}


def publish(encoder: TextEncoder, folder: Path, names: Sequence[str], kind: str = SERVED) -> None:
    """Publish an adapter under each of ``names`` in a folder of adapters, and make it live."""
    registry = Registry.open(folder)
    manifest = Manifest(task=TEXT_CLASSIFICATION, labels=LABELS)
    for seed, name in enumerate(names):
        weights = {key: value.half() for key, value in tensors(encoder, kind, seed).items()}
        bundle = Bundle.assemble(configuration(kind), save(weights, {"format": "pt"}), manifest)
        registry.set_alias(name, LIVE, Target.at(registry.publish(name, bundle)[0].version))


def names(count: int) -> list[str]:
    """Names for so many adapters."""
    return [f"tenant-{place:05d}" for place in range(count)]
