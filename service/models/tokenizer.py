"""Tokenizers of the base model and of sentence encoders, set up once.

transformers' own wrapper sets truncation and padding anew at every call, which concurrent threads may not do.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from service.errors import StartupError
from service.models.sources import locate, unreadable

SETTING = "QUICKCHANGE_BASE_MODEL"


class TextTokenizer:
    """Turns texts into token ids with the model's special tokens, never cut nor padded; safe to call from many threads."""

    def __init__(self, name: str) -> None:
        """Load by packaged name, folder or hub id; raises :class:`StartupError` when there is no fast tokenizer."""
        try:
            loaded = AutoTokenizer.from_pretrained(locate(name, SETTING))
        except (OSError, ValueError):
            raise unreadable(name, SETTING) from None
        if not loaded.is_fast:
            raise StartupError(f"{SETTING}={name}: its tokenizer is not a fast one; expected a folder with tokenizer.json")
        self._tokenizer = loaded.backend_tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]


class Texts:
    """The tokenising half of a sentence encoder: its own tokenizer, which is set up once."""

    def __init__(self, tokenizer: Tokenizer, max_length: int, prompt: str) -> None:
        self.max_length, self._prompt = max_length, prompt
        self._tokenizer = copy.deepcopy(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, cut to ``max_length``."""
        return [row.ids for row in self._tokenizer.encode_batch_fast([self._prompt + text for text in texts])]
