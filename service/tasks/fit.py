"""Whether an adapter was trained on the models that this server has; said together with everything else about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from service.errors import AdapterIncompatible
from service.store.bundle import Manifest
from service.wording import shown

Checked = TypeVar("Checked")
SHOWN = len("sha256:") + 12


def fitting(manifest: Manifest, fingerprints: Mapping[str, str], parse: Callable[[], Checked]) -> Checked:
    """What ``parse`` returns for an adapter whose manifest names our models; ``fingerprints`` are theirs by role.

    Raises :class:`AdapterIncompatible` with the manifest's faults and those that ``parse`` finds.
    """
    faults = [
        f"it was trained on {shown(base.name)[1:-1]} ({shown(base.fingerprint[:SHOWN])[1:-1]}…); "
        f"this server's {role.replace('_', ' ')} is {fingerprints[role][:SHOWN]}…"
        for role, base in manifest.base.items()
        if role in fingerprints and base.fingerprint != fingerprints[role]
    ]
    faults += [
        f"its manifest has the base {shown(role)}; accepted: {', '.join(fingerprints)}"
        for role in manifest.base
        if role not in fingerprints
    ]
    try:
        checked = parse()
    except AdapterIncompatible as error:
        raise AdapterIncompatible([*faults, *error.faults]) from None
    if faults:
        raise AdapterIncompatible(faults)
    return checked
