"""Changes of weights as LoRA factors: cut by their singular values, and written as a PEFT adapter with its head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from service.models.base_weights import Family
from service.models.heads import Head
from service.models.lora import Factors
from service.models.text_adapter import PREFIX

NOTHING = 1e-6  # of the largest singular value: what rounding leaves of a rank that is not there


@dataclass(frozen=True, slots=True)
class Change:
    """A module's change of weights as u · diag(s) · v: u (out, k), s (k,) from the largest down, v (k, in)."""

    u: Tensor
    s: Tensor
    v: Tensor

    @classmethod
    def of(cls, weights: Tensor) -> Change:
        """The change ``weights`` (out, in)."""
        return cls._real(*torch.linalg.svd(weights, full_matrices=False))

    @classmethod
    def product(cls, b: Tensor, a: Tensor) -> Change:
        """The change b · a, of b (out, r) and a (r, in), without multiplying them out."""
        left, upper = torch.linalg.qr(b)
        right, lower = torch.linalg.qr(a.T)
        u, s, v = torch.linalg.svd(upper @ lower.T, full_matrices=False)
        return cls._real(left @ u, s, v @ right.T)

    @classmethod
    def _real(cls, u: Tensor, s: Tensor, v: Tensor) -> Change:
        rank = int((s > NOTHING * s[0]).sum())
        return cls(u[:, :rank], s[:rank], v[:rank])

    @property
    def rank(self) -> int:
        """The rank that is there: 0 for no change."""
        return len(self.s)

    @property
    def energies(self) -> Tensor:
        """The square of each singular value, in float64; together the squared change."""
        return self.s.double().square()

    def factors(self, rank: int) -> Factors:
        """The best approximation of this rank (Eckart and Young), its size shared equally by both factors; scaling 1."""
        root = self.s[:rank].sqrt()
        return Factors(root[:, None] * self.v[:rank], root[:, None] * self.u[:, :rank].T)


Changes = Mapping[str, Change]
Ranks = Mapping[str, int]


def uniform(changes: Changes, rank: int) -> dict[str, int]:
    """Each module's rank: this one, or less where less is there."""
    return {module: min(rank, change.rank) for module, change in changes.items()}


def for_energy(changes: Changes, energy: float) -> dict[str, int]:
    """The ranks with the smallest sum that keep this share of the squared change: the largest singular values of all."""
    ranks = dict.fromkeys(changes, 0)
    found = [(float(e), module) for module, change in changes.items() for e in change.energies]
    wanted, kept = energy * sum(e for e, _ in found), 0.0
    for e, module in sorted(found, key=lambda pair: -pair[0]):
        if kept >= wanted:
            break
        ranks[module] += 1
        kept += e
    return ranks


def energy_kept(changes: Changes, ranks: Ranks) -> float:
    """The share of the squared change that these ranks keep, from 0 to 1; 1 where nothing has changed."""
    total = sum(float(change.energies.sum()) for change in changes.values())
    kept = sum(float(changes[module].energies[:rank].sum()) for module, rank in ranks.items())
    return min(kept / total, 1.0) if total else 1.0


def cut(changes: Changes, ranks: Ranks) -> dict[str, Factors]:
    """The factors of every module that changes; PEFT wants at least one, so that one of zeros stands for none."""
    factors = {module: changes[module].factors(rank) for module, rank in ranks.items() if rank}
    if not factors:
        module, change = next(iter(changes.items()))
        factors[module] = Factors(change.v.new_zeros(1, change.v.shape[1]), change.u.new_zeros(1, change.u.shape[0]))
    return factors


def peft_config(base_name: str, factors: Mapping[str, Factors], *, saves_pooler: bool) -> dict[str, Any]:
    """``adapter_config.json`` for these factors: scaling 1 everywhere, patterns where ranks differ, the head saved whole."""
    from peft import LoraConfig

    ranks = {module: pair.a.shape[0] for module, pair in factors.items()}
    usual = max(ranks.values(), key=list(ranks.values()).count)
    other = {module: rank for module, rank in ranks.items() if rank != usual}
    config = LoraConfig(
        task_type="SEQ_CLS", base_model_name_or_path=base_name, inference_mode=True, target_modules=sorted(factors),
        r=usual, lora_alpha=usual, rank_pattern=other, alpha_pattern=dict(other),
        modules_to_save=["classifier", "pooler"] if saves_pooler else ["classifier"],
    )  # fmt: skip
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}


def peft_tensors(factors: Mapping[str, Factors], head: Head, family: Family) -> dict[str, Tensor]:
    """The tensors of ``adapter_model.safetensors``, as PEFT names them; scaling is folded into ``lora_B``."""
    layers = {family.out: head.out, **({family.dense: head.dense} if head.dense else {})}
    tensors = {f"{PREFIX}{name}.weight": weight for name, (weight, _) in layers.items()}
    tensors |= {f"{PREFIX}{name}.bias": bias for name, (_, bias) in layers.items()}
    for module, pair in factors.items():
        tensors[f"{PREFIX}{module}.lora_A.weight"] = pair.a
        tensors[f"{PREFIX}{module}.lora_B.weight"] = pair.scaling * pair.b.T
    return tensors
