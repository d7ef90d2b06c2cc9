"""The frozen sentence encoder: a sentence-transformers model, with tokenising apart from the forward.

A BERT or RoBERTa with mean or first-token pooling, which most of them are, runs on the packed encoder; any other model
runs through the library, whose import alone takes seconds and 150 MB (docs/decisions/0003-sentence-encoder.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoTokenizer
from transformers.utils import logging as hub_logging

from service.errors import StartupError
from service.models.base_weights import FAMILIES, load_base
from service.models.clip import PREFIX, load_clip_texts
from service.models.lora import NO_RUNS
from service.models.packed import Packed
from service.models.sources import PACKAGED_MINILM, fingerprint, locate, unreadable
from service.models.text_encoder import TextEncoder
from service.models.tokenizer import Texts

SETTING = "QUICKCHANGE_SENTENCE_ENCODER"
POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}


class SentenceEncoder(Protocol):
    """A frozen model from texts to embeddings; ``size`` is an embedding's width, ``max_length`` the most tokens of a row.

    ``detail`` is the width of what it can tell in detail: ``size``, or more.
    """

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def detail(self) -> int: ...
    @property
    def max_length(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, cut to ``max_length``; safe to call from many threads."""

    def embed(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Embeddings, (n, size) in float32, of rows of token ids from :meth:`tokenize`."""

    def embed_in_detail(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The same, and behind them, up to (n, detail), what the encoder knows before it sums up."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a model's folder says beside its weights: pooling, normalising, length and prompt."""

    pooling: str
    normalised: bool
    max_length: int
    prompt: str


class PackedSentenceEncoder(Texts):
    """A sentence encoder on the packed text encoder, which a base model of the same folder may share."""

    def __init__(self, name: str, encoder: TextEncoder, tokenizer: Tokenizer, recipe: Recipe) -> None:
        super().__init__(tokenizer, recipe.max_length, recipe.prompt)
        self.name, self.size, self.fingerprint = name, encoder.hidden, encoder.fingerprint
        self.detail = self.size * (2 if recipe.pooling == "mean" else 1)
        self._encoder, self._recipe = encoder, recipe

    @torch.inference_mode()
    def embed(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Embeddings, (n, size) in float32, of rows of token ids."""
        return self.embed_in_detail(rows)[:, : self.size]

    @torch.inference_mode()
    def embed_in_detail(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The same, and behind them, with mean pooling, the mean over each row's states after half of the layers."""
        packed = self._encoder.pack(rows)
        if self._recipe.pooling == "first":
            return self._normalised(self._encoder.forward(packed, NO_RUNS))
        halfway, last = self._encoder.halfway_and_last(packed)
        means = _mean(torch.cat([last, halfway], 1), packed)
        return torch.cat([self._normalised(means[:, : self.size]), means[:, self.size :]], 1)

    def _normalised(self, pooled: Tensor) -> Tensor:
        return normalize(pooled) if self._recipe.normalised else pooled


def _mean(states: Tensor, packed: Packed) -> Tensor:
    """The mean over each row's tokens."""
    lengths = torch.from_numpy(np.diff(packed.starts)).to(states.device)
    # Told how many there will be, a GPU need not be waited for.
    row_of = torch.arange(packed.rows, device=states.device).repeat_interleave(lengths, output_size=packed.tokens)
    return states.new_zeros(packed.rows, states.shape[1]).index_add_(0, row_of, states) / lengths[:, None]


class LibrarySentenceEncoder(Texts):
    """A sentence encoder of any architecture, run by sentence-transformers."""

    def __init__(self, name: str, source: str, device: torch.device) -> None:
        from sentence_transformers import SentenceTransformer

        hub_logging.disable_progress_bar()
        try:
            model = SentenceTransformer(source, device=str(device), model_kwargs={"dtype": torch.float32})
        except (OSError, ValueError):
            raise unreadable(name, SETTING) from None
        if not hasattr(model.tokenizer, "backend_tokenizer"):
            raise StartupError(f"{SETTING}={name}: its tokenizer is not a fast one; expected a folder with tokenizer.json")
        prompt = model.prompts.get(model.default_prompt_name or "") or ""
        super().__init__(model.tokenizer.backend_tokenizer, model.max_seq_length or 512, prompt)
        self.name, self._model, self._device = name, model.eval().requires_grad_(False), device
        self.size: int = model.get_embedding_dimension() or 0
        self.detail = self.size
        self.fingerprint = fingerprint({key: value for key, value in model.state_dict().items() if value.is_floating_point()})
        self._pad: int = model.tokenizer.pad_token_id or 0

    @torch.inference_mode()
    def embed(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Embeddings, (n, size) in float32, of rows of token ids."""
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[self._pad] * (width - len(row))] for row in rows], device=self._device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self._device)
        features: dict[str, Any] = self._model({"input_ids": ids, "attention_mask": mask})
        embeddings: Tensor = features["sentence_embedding"]
        return embeddings.float()

    def embed_in_detail(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The same; the library tells no more."""
        return self.embed(rows)


def load_sentence_encoder(name: str, device: torch.device, loaded: Mapping[str, TextEncoder] | None = None) -> SentenceEncoder:
    """Load a sentence encoder by packaged name, folder, hub id or ``clip:FOLDER``; ``loaded`` has encoders to share, by folder.

    Raises :class:`StartupError` when it cannot be found, or has no tokenizer that this server can use.
    """
    if name.startswith(PREFIX):
        return load_clip_texts(name, SETTING, device)
    source = locate(name, SETTING)
    shown = PACKAGED_MINILM[1] if name in PACKAGED_MINILM else name
    recipe = read_recipe(Path(source))
    if recipe is None:
        return LibrarySentenceEncoder(shown, source, device)
    encoder = (loaded or {}).get(source) or TextEncoder(load_base(name, SETTING), device)
    tokenizer = AutoTokenizer.from_pretrained(source)
    return PackedSentenceEncoder(shown, encoder, tokenizer.backend_tokenizer, recipe)


def read_recipe(folder: Path) -> Recipe | None:
    """What sentence-transformers' files in ``folder`` ask for, or None when only the library can do it."""
    modules = [module["type"].rpartition(".")[2] for module in _json(folder / "modules.json") or []]
    if modules not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return None
    if (_json(folder / "config.json") or {}).get("model_type") not in FAMILIES or not (folder / "tokenizer.json").is_file():
        return None
    asked = [
        key
        for key, value in (_json(folder / "1_Pooling" / "config.json") or {}).items()
        if key.startswith("pooling_mode") and value
    ]
    settings, extras = (
        _json(folder / "sentence_bert_config.json") or {},
        _json(folder / "config_sentence_transformers.json") or {},
    )
    length = settings.get("max_seq_length")
    if len(asked) != 1 or asked[0] not in POOLINGS or not length:
        return None
    prompt = (extras.get("prompts") or {}).get(extras.get("default_prompt_name") or "", "")
    return Recipe(POOLINGS[asked[0]], modules[-1] == "Normalize", length, prompt)


def _json(file: Path) -> Any:
    return json.loads(file.read_bytes()) if file.is_file() else None
