"""The answers about aliases, the audit log, models and readiness."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

AGREES = (
    "part of the rows that both decide alike: the same best label, the same labels that apply, or first values that differ by "
    "a tenth at most"
)


class AliasMove(BaseModel):
    """One move of an alias: where it pointed from then on, by whom and when; no split where it was removed."""

    generation: int
    action: Annotated[str, Field(description="`set`, `rollback` or `remove`")]
    split: dict[str, int] | None
    shadow: int | None
    who: str
    at: datetime


class Comparison(BaseModel):
    """What a shadow answered beside the version that was returned, since this server first saw both."""

    version: int
    shadow: int
    rows: int
    errors: Annotated[int, Field(description="rows for which the shadow had no answer")]
    agreement: Annotated[float | None, Field(description=AGREES)]
    score_drift: Annotated[float | None, Field(description="mean distance of the best label's score between the two")]
    batch_ms: Annotated[float | None, Field(description="mean time of the forwards that both were in")]


class AliasView(BaseModel):
    """Where an alias points, how often it was moved, and its last hundred moves, the newest first."""

    adapter: str
    alias: str
    generation: int
    version: Annotated[int, Field(description="the version with the largest share")]
    split: dict[str, int]
    shadow: int | None
    require: dict[str, str]
    history: list[AliasMove]
    comparison: Comparison | None = None


class AuditEntry(BaseModel):
    """One change: who made it, when, and of what."""

    id: int
    at: datetime
    who: str
    action: str
    adapter: str
    version: int | None
    alias: str | None
    detail: str | None


class AuditLog(BaseModel):
    """Changes, the newest first."""

    entries: list[AuditEntry]


class Model(BaseModel):
    """An entry of ``/v1/models`` in vLLM's shape: adapters have the base model as their parent."""

    id: str
    object: str = "model"
    root: str
    parent: str | None


class ModelList(BaseModel):
    """The base model and every live adapter."""

    object: str = "list"
    data: list[Model]


class Readiness(BaseModel):
    """Whether the server takes requests: ``ready``, or ``degraded`` while what is loaded answers but changes are not possible."""

    status: str
    problems: list[str]
