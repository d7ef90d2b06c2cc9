"""The frozen sentence encoder: a sentence-transformers model, with tokenising apart from the forward.

The library is imported when a model is loaded (about two seconds and 200 MB), never at import time.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.utils import logging as hub_logging

from service.errors import StartupError
from service.models.sources import PACKAGED_MINILM, fingerprint, locate, unreadable

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SETTING = "QUICKCHANGE_SENTENCE_ENCODER"


class SentenceEncoder:
    """A frozen sentence-transformers model; its pooling and normalising are those of the model's own folder.

    ``size`` is the width of an embedding and ``max_length`` the most tokens of a row.
    """

    def __init__(self, name: str, model: SentenceTransformer, device: torch.device) -> None:
        self.name, self._model, self._device = name, model.eval().requires_grad_(False), device
        self.size: int = model.get_embedding_dimension() or 0
        self.max_length: int = model.max_seq_length or 512
        self.fingerprint = fingerprint({key: value for key, value in model.state_dict().items() if value.is_floating_point()})
        self._prompt: str = model.prompts.get(model.default_prompt_name or "") or ""
        self._pad: int = model.tokenizer.pad_token_id or 0
        # A tokenizer of its own, set up once: the library's sets truncation anew at each call, which threads may not do.
        self._tokenizer = copy.deepcopy(model.tokenizer.backend_tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_length)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, cut to ``max_length``; safe to call from many threads."""
        encoded = self._tokenizer.encode_batch([self._prompt + text for text in texts])
        return [row.ids for row in encoded]

    @torch.inference_mode()
    def embed(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Embeddings, (n, size) in float32, of rows of token ids from :meth:`tokenize`."""
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[self._pad] * (width - len(row))] for row in rows], device=self._device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self._device)
        features: dict[str, Any] = self._model({"input_ids": ids, "attention_mask": mask})
        embeddings: Tensor = features["sentence_embedding"]
        return embeddings.float()


def load_sentence_encoder(name: str, device: torch.device) -> SentenceEncoder:
    """Load a sentence encoder by packaged name, folder or hub id.

    Raises :class:`StartupError` when it cannot be found, or has no tokenizer that this server can use.
    """
    source = locate(name, SETTING)
    from sentence_transformers import SentenceTransformer

    hub_logging.disable_progress_bar()
    try:
        model = SentenceTransformer(source, device=str(device), model_kwargs={"dtype": torch.float32})
    except (OSError, ValueError):
        raise unreadable(name, SETTING) from None
    if not hasattr(model.tokenizer, "backend_tokenizer"):
        raise StartupError(f"{SETTING}={name}: its tokenizer is not a fast one; expected a folder with tokenizer.json")
    return SentenceEncoder(PACKAGED_MINILM[1] if name in PACKAGED_MINILM else name, model, device)
