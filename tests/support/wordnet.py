"""A dictionary folder in WordNet's own format, with a dozen nouns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

LICENCE = "  1 This stands where the licence does.\n"
# Each synset with its words and its hypernyms; a chair is a seat, or a person.
SYNSETS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "entity": (["entity"], []),
    "artifact": (["artifact"], ["entity"]),
    "furniture": (["furniture"], ["artifact"]),
    "seat": (["seat"], ["furniture"]),
    "chair": (["chair"], ["seat"]),
    "table": (["table", "board"], ["furniture"]),
    "sofa_bed": (["sofa_bed"], ["seat", "furniture"]),
    "colour": (["colour", "color"], ["entity"]),
    "red": (["red"], ["colour"]),
    "person": (["person"], ["entity"]),
    "chairman": (["chairman", "chair"], ["person"]),
    "alone": (["alone"], []),
}


def dict_folder(folder: Path) -> Path:
    """Write ``index.noun``, ``data.noun`` and ``noun.exc``."""
    folder.mkdir(parents=True)
    place, offsets = len(LICENCE), {}
    for name in SYNSETS:
        offsets[name] = place
        place += len(_line(name, dict.fromkeys(SYNSETS, 0)))
    (folder / "data.noun").write_text(LICENCE + "".join(_line(name, offsets) for name in SYNSETS))
    senses: dict[str, list[int]] = {}
    for name, (words, _) in SYNSETS.items():
        for word in words:
            senses.setdefault(word, []).append(offsets[name])
    lines = [f"{word} n {len(of)} 1 @ {len(of)} 0 {' '.join(f'{o:08d}' for o in of)}  \n" for word, of in sorted(senses.items())]
    (folder / "index.noun").write_text(LICENCE + "".join(lines))
    (folder / "noun.exc").write_text("persons person\npeople person\n")
    return folder


def _line(name: str, offsets: Mapping[str, int]) -> str:
    words, parents = SYNSETS[name]
    pointers = "".join(f" @ {offsets[parent]:08d} n 0000" for parent in parents)
    return f"{offsets[name]:08d} 03 n {len(words):02x} {' '.join(f'{w} 0' for w in words)} {len(parents):03d}{pointers} | -  \n"
