"""The answers about aliases, the audit log and readiness; their numbers of generations and versions begin at 1."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

Split = Annotated[
    dict[str, int], Field(description="each version's share of the requests, in per cent", examples=[{"3": 90, "4": 10}])
]


class AliasMove(BaseModel):
    """One entry of an alias's history."""

    generation: int
    split: Split
    shadow: int | None
    action: str
    who: str
    at: datetime


class AliasView(BaseModel):
    """Where an alias points; ``generation`` grows with each move of it, and is its ``ETag``."""

    adapter: str
    alias: str
    generation: int
    version: Annotated[int, Field(description="the version with the largest share")]
    split: Split
    shadow: Annotated[int | None, Field(description="the version whose answers are compared and never returned")] = None
    require: Annotated[dict[str, str], Field(description="what a version must reach", examples=[{"macro_f1": ">= live"}])] = {}
    history: list[AliasMove] = []
    comparison: Annotated[dict[str, Any] | None, Field(description="the shadow's answers beside those returned")] = None


class AuditEntry(BaseModel):
    """One change: who did what to which adapter, and when."""

    id: int
    at: datetime
    who: str
    action: str
    adapter: str | None = None
    version: int | None = None
    alias: str | None = None
    detail: Any = None


class AuditLog(BaseModel):
    """Changes, the newest first."""

    entries: list[AuditEntry]


class Readiness(BaseModel):
    """Whether the server takes requests: ``ready``, or ``degraded`` with what is wrong in ``problems``."""

    status: str
    problems: list[str] = []
