"""What a part of ``make chaos`` reports: a fault, how often it was tried, and what was lost by it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One fault; ``lost`` counts the tries after which something was wrong, and ``detail`` says what happened."""

    fault: str
    tried: int
    lost: int
    detail: str
