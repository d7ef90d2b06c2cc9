"""The answers about training jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from service.jobs.job import Job, State


class JobProgress(BaseModel):
    """Where a training was when it last said so; ``metrics`` are those of the last whole epoch, on validation."""

    model_config = ConfigDict(extra="ignore")

    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    texts_per_second: float | None = None
    eta_seconds: Annotated[float | None, Field(description="until the last step, at the present speed")] = None


class JobResult(BaseModel):
    """The bundle that a training made; its version is null where the gate kept it from being published."""

    version: int | None
    digest: str
    metrics: Annotated[dict[str, dict[str, float]], Field(description="by split, as measured after rounding the weights")]
    alias: Annotated[str | None, Field(description="the alias that was pointed at it")]


class JobError(BaseModel):
    """Why a training failed; ``code`` is stable, ``detail`` is one line for a person."""

    code: str
    detail: str


class JobView(BaseModel):
    """A training job: what for, how far, and what came of it."""

    id: str
    name: Annotated[str, Field(description="the adapter that it makes a version of")]
    task: str
    state: State
    created: datetime
    started: datetime | None
    finished: datetime | None
    progress: JobProgress | None
    result: JobResult | None
    error: JobError | None

    @classmethod
    def of(cls, job: Job, reported: dict[str, Any]) -> JobView:
        """The view of a job that has reported this last."""
        order, status = job.order, job.status
        return cls(
            id=job.id, name=order.name, task=order.task, state=status.state,
            created=order.created, started=status.started, finished=status.finished,
            progress=JobProgress.model_validate(reported) if reported else None,
            result=JobResult.model_validate(status.result.model_dump()) if status.result else None,
            error=JobError.model_validate(status.error.model_dump()) if status.error else None,
        )  # fmt: skip


class JobList(BaseModel):
    """Training jobs, the newest first; ``next`` is what to ask for as ``after`` where there are more."""

    jobs: list[JobView]
    next: str | None = None
