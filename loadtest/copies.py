"""Folders with any number of adapters, made quickly: copies of one that share the bytes of its weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.store.layout import CARD, CONFIG, MANIFEST

TEMPLATE = "sentiment"  # the live adapter that all others are copies of
OWN = (CARD, CONFIG, MANIFEST)


@dataclass(frozen=True, slots=True)
class Folders:
    """Folders of adapters: the given ones, one of them alone, and with copies of it up to the full number."""

    given: Path
    one: Path
    many: Path
    names: Sequence[str]


def build(adapters: Path, scratch: Path, count: int) -> Folders:
    """Fill ``scratch`` with the folders; the copies share the bytes of weights and plots, and have other files of their own."""
    given, one, many = scratch / "given", scratch / "one", scratch / "many"
    template = bundle_folder(adapters, TEMPLATE)
    shutil.copytree(adapters, given)
    shutil.copytree(template.parent, one / TEMPLATE)
    shutil.copytree(adapters, many)
    files = {name: (template / name).read_text("utf-8") for name in OWN}
    shared = [file for file in (one / TEMPLATE / template.name).iterdir() if file.name not in OWN]
    state = json.dumps({"aliases": {"live": int(template.name)}})
    names = [f"tenant-{number:05}" for number in range(count - len(list(adapters.iterdir())))]
    for name in names:
        folder = many / name / template.name
        folder.mkdir(parents=True)
        for file in shared:
            (folder / file.name).hardlink_to(file)
        for own, content in files.items():
            (folder / own).write_text(content.replace(f'"name": "{TEMPLATE}"', f'"name": "{name}"'), "utf-8")
        (many / name / "registry.json").write_text(state, "utf-8")
    return Folders(given, one, many, names)


def bundle_folder(adapters: Path, name: str) -> Path:
    """The folder of an adapter's live version."""
    state = json.loads((adapters / name / "registry.json").read_bytes())
    return adapters / name / str(state["aliases"]["live"])
