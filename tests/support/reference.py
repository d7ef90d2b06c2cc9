"""The answers that the server must give, computed the plain way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import linear, relu
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from service.models.base_weights import load_base
from service.models.calibration import text_encoder
from service.models.image_encoder import ImageEncoder
from service.models.linear import Dtype
from service.models.sentence_encoder import SentenceEncoder
from service.models.text_classifier import Row, TextClassifier
from service.models.tokenizer import TextTokenizer
from service.store.bundle import Bundle
from service.store.problem_types import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from service.tasks.images import decode
from training.bundles import write_bundle

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    SINGLE_LABEL: lambda logits: logits.softmax(-1),
    MULTI_LABEL: torch.sigmoid,
    REGRESSION: lambda logits: logits,
}


def text_scores(base: Path, bundle: Bundle, folder: Path, texts: Sequence[str]) -> list[dict[str, float]]:
    """Each text's scores by label: PEFT's own loading of the bundle (written to ``folder``), one text at a time."""
    write_bundle(bundle, folder)
    labels, activation = bundle.manifest.labels, ACTIVATIONS[bundle.manifest.problem_type]
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(labels))
    model, tokenizer = PeftModel.from_pretrained(plain, folder).eval(), AutoTokenizer.from_pretrained(base)
    scores = []
    with torch.inference_mode():
        for text in texts:
            row = tokenizer(text, truncation=True, max_length=bundle.manifest.max_length or 64, return_tensors="pt")
            scores.append(dict(zip(labels, activation(model(**row).logits[0]).tolist(), strict=True)))
    return scores


def lone_scores(base: Path, bundle: Bundle, dtype: Dtype, texts: Sequence[str]) -> list[dict[str, float]]:
    """The same by the engine itself, each text in a batch of its own: in lower precisions no other library rounds alike."""
    labels, activation, tokenizer = bundle.manifest.labels, ACTIVATIONS[bundle.manifest.problem_type], TextTokenizer(str(base))
    encoder = text_encoder(load_base(str(base)), tokenizer, torch.device("cpu"), dtype)
    classifier = TextClassifier(encoder, max_rank=64)
    worn = classifier.load(classifier.parse(bundle.config, bundle.tensors, len(labels)))
    batches = (classifier.collate([Row(ids, worn)]) for ids in tokenizer(texts))
    return [dict(zip(labels, activation(classifier.forward(batch)[0]).tolist(), strict=True)) for batch in batches]


def vqa_scores(images: ImageEncoder, sentences: SentenceEncoder, bundle: Bundle, image: bytes, question: str) -> dict[str, float]:
    """The probabilities of each answer, by the two towers and plain linear layers."""
    tensors, read = bundle.tensors, bundle.config["sentence_encoder"]["size"]
    asked = sentences.embed_in_detail(sentences.tokenize([question]))[:, :read]
    embedded = images.embed(images.preprocess(decode(image, 10**9))[None]), asked
    hidden = relu(linear(torch.cat(embedded, 1), tensors["hidden.weight"], tensors["hidden.bias"]))
    logits = linear(hidden, tensors["output.weight"], tensors["output.bias"])[0]
    return dict(zip(bundle.manifest.labels, logits.softmax(-1).tolist(), strict=True))
