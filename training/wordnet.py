"""WordNet's nouns from its own dictionary files, and how alike two of them are by Wu and Palmer.

The files' format is that of wndb(5WN). What a word's synsets and a pair's similarity are follows NLTK, whose figures the
publications on DAQUAR report.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from training.data import DataError

INDEX, DATA, EXCEPTIONS = "index.noun", "data.noun", "noun.exc"
INSTALLED = "/usr/share/wordnet"
HYPERNYMS = ("@", "@i")
# WordNet's rules of detachment for nouns: an ending, and what stands for it in the base form.
ENDINGS = (
    ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"),
    ("ies", "y"),
)  # fmt: skip


class WordNet:
    """The nouns of a dictionary folder; a synset is known by its offset in ``data.noun``."""

    def __init__(self, folder: Path) -> None:
        """Raises :class:`DataError` when the folder lacks a file, or one is not of WordNet's format."""
        missing = [name for name in (INDEX, DATA) if not (folder / name).is_file()]
        if missing:
            raise DataError(f"{folder}: no {' and no '.join(missing)}; expected a folder of WordNet's dictionary files")
        try:
            self._index = dict(_index(folder / INDEX))
            self._exceptions = dict(_exceptions(folder / EXCEPTIONS)) if (folder / EXCEPTIONS).is_file() else {}
        except ValueError:
            raise DataError(f"{folder / INDEX} is not in WordNet's format") from None
        self._data = (folder / DATA).read_bytes()
        self._parents = cache(self._read_parents)
        self._above = cache(self._find_above)
        self._depths = cache(self._find_depths)
        self.similarity = cache(self._similarity)

    def synsets(self, word: str) -> tuple[int, ...]:
        """Every synset of a noun or of its base forms, such as ``chair`` for ``chairs``; spaces count as underscores."""
        form = word.strip().lower().replace(" ", "_")
        if form in self._exceptions:
            return self._of([form, *self._exceptions[form]])
        forms = _detached([form])
        found = self._of([form, *forms])
        while forms and not found:
            forms = _detached(forms)
            found = self._of(forms)
        return found

    def _similarity(self, first: int, second: int) -> float:
        """Wu and Palmer's similarity of two synsets, 0 where they have no hypernym in common."""
        above = self._above(first), self._above(second)
        common = above[0].keys() & above[1].keys()
        if not common:
            return 0.0
        deepest = max(self._depths(synset)[0] for synset in common)
        lowest = [synset for synset in common if self._depths(synset)[0] == deepest]
        subsumer = first if first in lowest else min(lowest, key=self._name)
        depth = self._depths(subsumer)[1] + 1
        lengths = [depth + _distance(ways, self._above(subsumer)) for ways in above]
        return 2 * depth / sum(lengths)

    def _of(self, forms: Iterable[str]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(synset for form in forms for synset in self._index.get(form, ())))

    def _fields(self, synset: int) -> list[str]:
        line = self._data[synset : self._data.find(b"\n", synset)]
        fields = line.decode("utf-8", "replace").split("|")[0].split()
        if not fields or not fields[0].isdigit() or int(fields[0]) != synset:
            raise DataError(f"{DATA}: no synset at {synset}, where {INDEX} or a pointer says there is one")
        return fields

    def _read_parents(self, synset: int) -> tuple[int, ...]:
        fields = self._fields(synset)
        start = 4 + 2 * int(fields[3], 16)  # behind the words, each with its number
        pointers = [fields[start + 1 + 4 * i : start + 5 + 4 * i] for i in range(int(fields[start]))]
        return tuple(int(offset) for symbol, offset, _, _ in pointers if symbol in HYPERNYMS)

    def _find_above(self, synset: int) -> dict[int, int]:
        """Every hypernym with the shortest way to it, the synset itself included."""
        found, level = {synset: 0}, [synset]
        while level:
            parents = [parent for one in level for parent in self._parents(one)]
            level = [parent for parent in dict.fromkeys(parents) if parent not in found]
            found |= dict.fromkeys(level, 1 + max(found.values()))
        return found

    def _find_depths(self, synset: int) -> tuple[int, int]:
        """The shortest and the longest way to the root."""
        depths = [self._depths(parent) for parent in self._parents(synset)]
        return (1 + min(low for low, _ in depths), 1 + max(high for _, high in depths)) if depths else (0, 0)

    def _name(self, synset: int) -> str:
        """``dog.n.01``: what NLTK calls a synset, and by what it chooses between subsumers of the same depth."""
        lemma = self._fields(synset)[4].lower()
        return f"{lemma}.n.{self._index[lemma].index(synset) + 1:02d}"


def find_wordnet(folder: Path | None) -> WordNet | None:
    """WordNet from ``folder``, from where WNSEARCHDIR or WNHOME say, or from where Debian installs it; None if it is nowhere.

    Raises :class:`DataError` when a given ``folder`` does not hold it.
    """
    if folder is not None:
        return WordNet(folder)
    places = [os.environ.get("WNSEARCHDIR"), str(Path(os.environ.get("WNHOME", INSTALLED)) / "dict"), INSTALLED]
    return next((WordNet(Path(place)) for place in places if place and (Path(place) / DATA).is_file()), None)


def _index(file: Path) -> Iterable[tuple[str, tuple[int, ...]]]:
    for line in file.read_text("utf-8").splitlines():
        if not line.startswith(" "):  # the licence at the top is indented
            lemma, _, count, *rest = line.split()
            yield lemma, tuple(map(int, rest[-int(count) :]))


def _exceptions(file: Path) -> Iterable[tuple[str, list[str]]]:
    for line in file.read_text("utf-8").splitlines():
        form, *bases = line.split()
        yield form, bases


def _detached(forms: Iterable[str]) -> list[str]:
    return [form.removesuffix(old) + new for form in forms for old, new in ENDINGS if form.endswith(old)]


def _distance(first: Mapping[int, int], second: Mapping[int, int]) -> int:
    return min(first[synset] + second[synset] for synset in first.keys() & second.keys())
