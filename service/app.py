"""Puts the server together: the one file that knows every other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from threading import Barrier
from typing import Literal

import torch
from litestar import Litestar, Request, Router
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.plugins.pydantic import PydanticPlugin

from service.compute import use_all_cores
from service.engine.device import Device
from service.engine.pipeline import Limits, Pipeline
from service.errors import StartupError
from service.jobs.folder import JobsFolder
from service.jobs.jobs import Jobs
from service.jobs.supervisor import Supervisor
from service.models.base_weights import load_base
from service.models.calibration import text_encoder
from service.models.image_encoder import load_image_encoder
from service.models.linear import DTYPES, Dtype, computes_in, fastest
from service.models.sentence_encoder import load_sentence_encoder
from service.models.sources import locate
from service.models.text_classifier import TextClassifier
from service.models.tokenizer import TextTokenizer
from service.routes import adapters, aliases, files, health, text, training_events, training_jobs, vqa
from service.routes.boundary import Boundary
from service.routes.caller import provide_caller
from service.routes.direct import Direct
from service.routes.docs import docs_assets, docs_page, docs_router
from service.routes.guards import Access, check_scopes
from service.routes.keys_file import KeysFile
from service.routes.loop_delay import LoopDelay
from service.routes.metrics import Metrics
from service.routes.problems import to_response
from service.routes.services import Lifetime, Readers, Services
from service.settings import Settings
from service.store.bundle import TEXT_CLASSIFICATION, VISUAL_QUESTION_ANSWERING
from service.store.registry import Registry
from service.store.watcher import Watcher
from service.tasks.lifecycle import AdapterTask, Lifecycle
from service.tasks.residency import Residency
from service.tasks.text_classification import TextClassification
from service.tasks.vqa import VisualQuestionAnswering

log = logging.getLogger(__name__)
CHANGES = 4  # of adapters at a time: one that waits for the database or a slow store holds up no other
READS = 4  # of the registry at a time, and checks that the framework makes
CPU_THREADS = 4  # for decoding and tokenising; both leave Python's lock
EAGER_SECONDS = 0.3  # of loading adapters before the first request is taken; the rest are loaded when asked for
HANDLERS = [
    text.sentiment, text.classify, vqa.vqa, adapters.list_adapters, adapters.show_adapter, adapters.delete_version,
    adapters.list_models, aliases.show_alias, aliases.set_alias, aliases.roll_back, aliases.remove_alias, aliases.audit,
    files.version_file, training_jobs.show_job, training_jobs.end_job, training_events.events,
    health.live, health.ready, health.metrics,
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Application:
    """The ASGI application and what surrounds it: ``problems`` has a line for each adapter that could not be loaded.

    ``framework`` is the application's inside, which knows every route.
    """

    asgi: Boundary
    framework: Litestar
    services: Services
    problems: list[str]


def create_app(settings: Settings) -> Application:
    """Load the models and the live adapters, and wire everything together.

    Raises :class:`StartupError` with one line when a model, a setting or the keys file is not usable.
    """
    keys = KeysFile(settings.api_keys_file) if settings.api_keys_file is not None else None
    if settings.is_public and keys is None and not settings.insecure:
        raise StartupError(
            f"QUICKCHANGE_HOST={settings.host} is reachable from outside; "
            "set QUICKCHANGE_API_KEYS_FILE, or --insecure to go without keys"
        )
    compute, threads = Device(use_all_cores), _started(CPU_THREADS, "prepare")
    registry = Registry.open(settings.adapters_dir, settings.registry_url, settings.store_url)
    residency = Residency(registry.read, device_bytes=settings.max_lora_bytes, host_bytes=settings.max_cpu_lora_bytes)
    text_task, vqa_task = _tasks(settings, registry, residency, compute)
    tasks: dict[str, AdapterTask] = {TEXT_CLASSIFICATION: text_task, VISUAL_QUESTION_ANSWERING: vqa_task}
    lifecycle = Lifecycle(registry, residency, tasks, settings.preloaded)
    problems = lifecycle.load_live(EAGER_SECONDS)
    limits = Limits(
        settings.max_concurrent_requests,
        settings.max_batch_tokens,
        settings.max_queue_seconds,
        settings.max_queue_tokens,
        settings.request_timeout,
    )
    metrics = Metrics()
    services = Services(
        text=Pipeline(text_task, compute, threads, metrics.text, limits, text_task.is_quick),
        vqa=Pipeline(vqa_task, compute, threads, metrics.vqa, limits),
        lifecycle=lifecycle,
        watcher=Watcher(registry),
        comparisons={TEXT_CLASSIFICATION: text_task.comparisons, VISUAL_QUESTION_ANSWERING: vqa_task.comparisons},
        caches={"images": vqa_task.image_cache, "questions": vqa_task.question_cache},
        base_model=settings.base_model,
        lifetime=Lifetime(),
        max_client_batch_size=settings.max_client_batch_size,
        threads=_started(CHANGES, "change"),
        max_lora_rank=settings.max_lora_rank,
        readers=Readers(),
        training=_training(settings, lifecycle),
    )
    metrics.watch(services)
    compute.call(text_task.warm_up)
    access = Access(keys, settings.is_public)
    framework = _litestar(settings, services, metrics, access, compute, threads)
    direct = Direct(framework, services, access, settings.max_body_bytes)
    return Application(Boundary(direct, metrics, settings.request_timeout), framework, services, problems)


def _training(settings: Settings, lifecycle: Lifecycle) -> Supervisor | None:
    if not settings.max_training_jobs:
        return None
    jobs = Jobs(JobsFolder(settings.jobs_dir), settings.max_waiting_jobs)
    return Supervisor(jobs, lifecycle, settings.max_training_jobs, settings.training_threads)


def _started(count: int, name: str) -> ThreadPoolExecutor:
    """Threads that are all there from the start, so that no later moment pays for one."""
    pool, met = ThreadPoolExecutor(count, name), Barrier(count)
    wait([pool.submit(met.wait) for _ in range(count)])
    return pool


def _tasks(
    settings: Settings, registry: Registry, residency: Residency, compute: Device
) -> tuple[TextClassification, VisualQuestionAnswering]:
    device = _device(settings.device)
    tokenizer = TextTokenizer(settings.base_model)
    encoder = text_encoder(load_base(settings.base_model), tokenizer, device, _dtype(settings.dtype, device))
    shared = {locate(settings.base_model, "QUICKCHANGE_BASE_MODEL"): encoder}
    classifier = TextClassifier(encoder, settings.max_lora_rank, residency.device.limit)
    text_task = TextClassification(
        classifier, tokenizer, registry, compute.call, residency,
        max_chars=settings.max_text_chars,
    )  # fmt: skip
    # Where it will compute: oneDNN lays convolutions' weights out for as many threads as it sees then.
    images = compute.call(partial(load_image_encoder, settings.image_encoder, device))
    vqa_task = VisualQuestionAnswering(
        images, load_sentence_encoder(settings.sentence_encoder, device, shared),
        registry, compute.call, residency,
        max_chars=settings.max_text_chars, max_pixels=settings.max_image_pixels,
        cache_size=settings.embedding_cache_size, device=device,
    )  # fmt: skip
    return text_task, vqa_task


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise StartupError(
            f"QUICKCHANGE_DEVICE={name}: no such device here; accepted: auto, cpu, or cuda where there is a GPU"
        ) from None
    return device


def _dtype(name: Dtype | Literal["auto"], device: torch.device) -> Dtype:
    if name == "auto":
        return fastest(device)
    if not computes_in(name, device):
        accepted = ", ".join(["auto", *(known for known in DTYPES if computes_in(known, device))])
        raise StartupError(
            f"QUICKCHANGE_DTYPE={name}: this {device.type} has no instructions or no kernel for it; accepted: {accepted}"
        )
    return name


def _litestar(
    settings: Settings, services: Services, metrics: Metrics, access: Access, compute: Device, threads: ThreadPoolExecutor
) -> Litestar:
    def provide_services() -> Services:
        return services

    def provide_metrics() -> Metrics:
        return metrics

    async def refuse_while_draining(request: Request) -> None:  # type: ignore[type-arg]  # the framework's hook takes any
        if request.url.path.startswith("/v1"):
            services.lifetime.check()

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(_started(READS, "read"))
        delay = LoopDelay(metrics.loop_delayed)
        delay.start()
        services.text.start()
        services.vqa.start()
        services.watcher.start()
        if services.training is not None:
            services.training.start()
        try:
            yield
        finally:
            delay.stop()
            if services.training is not None:
                services.training.stop()
            services.watcher.stop()
            services.text.stop()
            services.vqa.stop()
            compute.close()
            threads.shutdown()
            services.threads.shutdown()
            services.lifecycle.registry.close()

    uploads = Router("/", route_handlers=[adapters.publish], request_max_body_size=settings.max_adapter_bytes)
    orders = Router(
        "/", route_handlers=[training_jobs.list_jobs, training_jobs.submit], request_max_body_size=settings.max_training_bytes
    )
    app = Litestar(
        [*HANDLERS, uploads, orders, docs_assets()],
        dependencies={
            "services": Provide(provide_services, sync_to_thread=False),
            "metrics": Provide(provide_metrics, sync_to_thread=False),
            "caller": Provide(provide_caller, sync_to_thread=False),
        },
        exception_handlers={Exception: to_response},
        guards=[access.on_loop],
        before_request=refuse_while_draining,
        lifespan=[lifespan],
        plugins=[PydanticPlugin(validate_strict=True)],  # "1" is no number in JSON
        request_max_body_size=settings.max_body_bytes,
        openapi_config=_openapi(),
        logging_config=None,
    )
    check_scopes(app)
    return app


def _openapi() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Quickchange",
        version=version("quickchange"),
        description="One base model in memory; every request wears its own adapter.",
        render_plugins=[docs_page()],
        openapi_router=docs_router(),
        components=Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer")}),
    )
