"""Training over HTTP: ask for one, look at it, end it. :mod:`service.routes.training_events` streams its progress."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from service.errors import NotFound
from service.jobs.folder import PROGRESS
from service.jobs.job import Job
from service.jobs.jobs import Jobs
from service.jobs.progress import latest
from service.routes.caller import Caller
from service.routes.guards import KEEPS_TO_PREFIX, multipart_only
from service.routes.keys import READ, WRITE
from service.routes.problems import documented
from service.routes.services import Services
from service.routes.training_form import OrderForm, OrderOperation
from service.routes.training_views import JobList, JobView

PATH = "/v1/training-jobs"
JOB = PATH + "/{job:str}"
MOST_LISTED = 100
TAG = "training"
REMOVED = {204: ResponseSpec(None, generate_examples=False, description="it was over; its record is gone")}


def jobs_of(services: Services) -> Jobs:
    """The training jobs; raises :class:`NotFound` where training over HTTP is turned off."""
    if services.training is None:
        raise NotFound("training over HTTP is turned off here; QUICKCHANGE_MAX_TRAINING_JOBS turns it on")
    return services.training.jobs


@post(
    PATH,
    opt={"scope": WRITE, KEEPS_TO_PREFIX: True},
    guards=[multipart_only],
    operation_class=OrderOperation,
    status_code=202,
    tags=[TAG],
    summary="Train an adapter",
    responses=documented(400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 504, 507),
)
async def submit(
    request: Request[Any, Any, Any], services: NamedDependency[Services], caller: NamedDependency[Caller]
) -> Response[JobView]:
    """Train on the data in a process of its own; at the end the adapter is published, and the alias points at it."""
    jobs = jobs_of(services)
    form = await OrderForm.read(request)

    def change() -> Response[JobView]:
        order = form.order(services.base_model, services.max_lora_rank, caller.who)
        caller.check(order.name)
        services.lifecycle.registry.check_task(order.name, order.task)
        job = jobs.submit(order, form.data)
        return Response(JobView.of(job, {}), status_code=202, headers={"location": f"{PATH}/{job.id}"})

    return await services.change(change)


@get(
    PATH,
    opt={"scope": READ, KEEPS_TO_PREFIX: True},
    tags=[TAG],
    summary="List the training jobs",
    responses=documented(400, 401, 403, 404, 429, 503),
    sync_to_thread=True,
)
def list_jobs(
    services: NamedDependency[Services],
    caller: NamedDependency[Caller],
    limit: Annotated[int, QueryParameter(ge=1, le=MOST_LISTED, description="how many at most")] = MOST_LISTED,
    after: Annotated[str, QueryParameter(description="the id to go on after: `next` of the answer before")] = "",
) -> JobList:
    """The training jobs, the newest first."""
    jobs = jobs_of(services)
    found, more = jobs.page(limit, after, caller.prefix)
    return JobList(jobs=[view(jobs, job) for job in found], next=more)


@get(
    JOB,
    opt={"scope": READ, KEEPS_TO_PREFIX: True},
    tags=[TAG],
    summary="Show a training job",
    responses=documented(400, 401, 403, 404, 429, 503),
    sync_to_thread=True,
)
def show_job(job: FromPath[str], services: NamedDependency[Services], caller: NamedDependency[Caller]) -> JobView:
    """How far it is, or what came of it."""
    jobs = jobs_of(services)
    return view(jobs, jobs.get(job, caller.prefix))


@delete(
    JOB,
    opt={"scope": WRITE, KEEPS_TO_PREFIX: True},
    status_code=202,
    tags=[TAG],
    summary="Cancel a training job, or remove the record of one that is over",
    responses={**REMOVED, **documented(400, 401, 403, 404, 429, 503, 507)},
)
async def end_job(
    job: FromPath[str], services: NamedDependency[Services], caller: NamedDependency[Caller]
) -> Response[JobView | None]:
    """One that waits is cancelled at once, one that runs in a moment; what it has published stays."""
    jobs = jobs_of(services)

    def change() -> Response[JobView | None]:
        left = jobs.cancel(job, caller.prefix)
        return Response(None, status_code=204) if left is None else Response(view(jobs, left), status_code=202)

    return await services.change(change)


def view(jobs: Jobs, job: Job) -> JobView:
    """A job with what it has reported last."""
    return JobView.of(job, latest(jobs.folder.place(job.id) / PROGRESS))
