"""The libraries of kernels that this processor can run, each to be tested as if it were the processor's own."""

from __future__ import annotations

from service.models import kernels

LIBRARIES = dict(kernels.libraries())


def having(kernel: str) -> list[str]:
    """The levels whose library has a kernel."""
    return [level for level, library in LIBRARIES.items() if hasattr(library, kernel)]
