"""What each option of a PEFT LoRA configuration means here: without effect on trained tensors, honoured, or refused."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from service.wording import shown

HONOURED = {
    "peft_type", "task_type", "bias", "init_lora_weights", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern",
    "target_modules", "exclude_modules", "layers_to_transform", "modules_to_save", "id2label", "problem_type",
}  # fmt: skip
# They say how an adapter was made, or where to look for a model; the tensors already have what came of it.
HARMLESS = {
    "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "lora_dropout", "layers_pattern",
    "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "runtime_config",
    "ensure_weight_tying", "label2id", "num_labels",
}  # fmt: skip
REFUSED = {
    "use_dora": "LoRA with magnitudes",
    "fan_in_fan_out": "transposed weights",
    "lora_bias": "a bias beside lora_B",
    "megatron_config": "Megatron's layers",
    "trainable_token_indices": "trained token embeddings",
    "velora_config": "compressed activations",
    "alora_invocation_tokens": "LoRA from a phrase on",
    "use_qalora": "LoRA on pooled inputs",
    "monteclora_config": "sampled LoRA",
    "layer_replication": "repeated layers",
    "target_parameters": "LoRA on bare parameters",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "routing between adapters",
    "kasa_config": "a changed base model",
}
INITIAL = (None, True, False, "gaussian", "eva", "mica", "orthogonal")  # the others change the base model's own weights
HEADS = {"classifier", "score", "pooler"}  # what may be saved beside LoRA; PEFT writes the first two by itself
MOST_PATTERNS = 1000
PATTERN = re.compile(r"[\w.^$\\-]{1,200}")  # what could repeat or branch could also take for ever to match


def option_faults(config: Mapping[str, Any]) -> list[str]:
    """A line for each option that would make PEFT compute something else than this server does."""
    if config.get("peft_type") != "LORA":
        return [f"peft_type {shown(config.get('peft_type'))} is not supported; expected 'LORA'"]
    faults = []
    if config.get("task_type") not in ("SEQ_CLS", None):
        faults.append(f"task_type {shown(config['task_type'])} is not supported; expected 'SEQ_CLS'")
    if config.get("init_lora_weights", True) not in INITIAL:
        faults.append(f"init_lora_weights {shown(config['init_lora_weights'])} changes the base model, which all adapters share")
    if config.get("bias", "none") != "none":
        faults.append(f"bias {shown(config['bias'])} is not supported; expected 'none'")
    if config.get("use_rslora") not in (None, True, False):
        faults.append(f"use_rslora {shown(config['use_rslora'])} is not supported; expected true or false")
    faults += [
        f"{name} {shown(config[name])} is not supported; expected a list of module names"
        for name in ("target_modules", "modules_to_save")
        if not _is_names(config.get(name), name)
    ]
    faults += [
        f"modules_to_save has {shown(name)}; accepted: parts of a head ({', '.join(sorted(HEADS))})"
        for name in names_in(config, "modules_to_save")
        if not HEADS.intersection(name.split("."))
    ]
    others = sorted(key for key, value in config.items() if value and key not in HONOURED | HARMLESS)
    return faults + [_unsupported(key, config[key]) for key in others]


def names_in(config: Mapping[str, Any], option: str) -> Sequence[str]:
    """The module names in a list; none where the option is not one."""
    names = config.get(option)
    return sorted(names) if names and not isinstance(names, str) and _is_names(names, option) else []


class Ranks:
    """Each module's rank and scaling, by PEFT's rules; ``faults`` has a line for what is wrong in the configuration."""

    def __init__(self, config: Mapping[str, Any], max_rank: int) -> None:
        self.faults: list[str] = []
        self._max_rank, self._is_stabilised = max_rank, bool(config.get("use_rslora"))
        self._r, self._alpha = config.get("r", 8), config.get("lora_alpha", 8)
        self._r_of, self._alpha_of = self._patterns(config, "rank_pattern"), self._patterns(config, "alpha_pattern")

    def of(self, module: str) -> tuple[int, float] | None:
        """Rank and scaling: ``lora_alpha / r``, or ``/ sqrt(r)`` with ``use_rslora``; None where they are at fault."""
        r, alpha = _first(self._r_of, module, self._r), _first(self._alpha_of, module, self._alpha)
        is_rank = type(r) is int and 1 <= r <= self._max_rank
        is_number = type(alpha) in (int, float) and math.isfinite(alpha)
        if not is_rank:
            self._fault(f"r {shown(r)} is not a rank; this server accepts 1 to {self._max_rank}")
        if not is_number:
            self._fault(f"lora_alpha {shown(alpha)} is not accepted; expected a number")
        return (r, alpha / math.sqrt(r) if self._is_stabilised else alpha / r) if is_rank and is_number else None

    def _patterns(self, config: Mapping[str, Any], option: str) -> list[tuple[re.Pattern[str], Any]]:
        given = config.get(option) or {}
        if not isinstance(given, dict) or len(given) > MOST_PATTERNS:
            self._fault(f"{option} is not an object of at most {MOST_PATTERNS} module names and numbers")
            return []
        patterns = []
        for pattern, value in given.items():
            try:
                if not PATTERN.fullmatch(pattern):
                    raise re.error("")
                patterns.append((re.compile(rf"(.*\.)?({pattern})$"), value))
            except re.error:
                self._fault(f"{option} has the key {shown(pattern)}; module names are accepted, without * + ? | ( [ {{")
        return patterns

    def _fault(self, fault: str) -> None:
        if fault not in self.faults:
            self.faults.append(fault)


def _first(patterns: Sequence[tuple[re.Pattern[str], Any]], module: str, default: Any) -> Any:
    return next((value for pattern, value in patterns if pattern.match(module)), default)


def _is_names(value: Any, option: str) -> bool:
    if value is None or (option == "target_modules" and isinstance(value, str)):
        return True
    # PEFT has a set where its file has a list.
    return isinstance(value, list | set) and all(isinstance(name, str) for name in value)


def _unsupported(option: str, value: Any) -> str:
    what = f" ({REFUSED[option]})" if option in REFUSED else ""
    return f"option {shown(option)[1:-1]}{what} is {shown(value)}; it is not supported: leave it out"
