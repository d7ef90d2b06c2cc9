"""Everything that the project installs is pinned."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
EXTRAS = ("", "train", "load", "dev")


def needed(name: str, extras: tuple[str, ...], seen: set[tuple[str, str]]) -> set[str]:
    """Names of what a distribution needs here, with all that those need."""
    found = set()
    for line in distribution(name).requires or ():
        requirement = Requirement(line)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        key = canonicalize_name(requirement.name), ",".join(sorted(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            found |= {key[0]} | needed(key[0], ("", *requirement.extras), seen)
        except PackageNotFoundError:
            continue
    return found


def test_every_installed_dependency_is_pinned_at_its_version() -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", CONSTRAINTS.read_text("utf-8"), re.MULTILINE))
    pins = {canonicalize_name(name): version for name, version in pinned.items()}
    installed = {name: distribution(name).version for name in needed("quickchange", EXTRAS, set())}
    assert len(installed) > 50
    assert {name: version for name, version in installed.items() if pins.get(canonicalize_name(name)) != version} == {}
