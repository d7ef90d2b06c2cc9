"""Puts the server together: the one file that knows every other."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
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
from service.models.image_encoder import load_image_encoder
from service.models.linear import Dtype, computes_in, fastest
from service.models.sentence_encoder import load_sentence_encoder
from service.models.sources import locate
from service.models.text_classifier import TextClassifier
from service.models.text_encoder import TextEncoder, load_base
from service.models.tokenizer import TextTokenizer
from service.routes import adapters, files, health, text, vqa
from service.routes.boundary import Boundary
from service.routes.direct import Direct
from service.routes.docs import docs_assets, docs_page
from service.routes.guards import Access, read_keys
from service.routes.loop_delay import LoopDelay
from service.routes.metrics import Metrics
from service.routes.problems import to_response
from service.routes.services import Lifetime, Services
from service.settings import Settings
from service.store.bundle import TEXT_CLASSIFICATION, VISUAL_QUESTION_ANSWERING
from service.store.directory import DirectoryStore
from service.store.registry import Registry
from service.tasks.lifecycle import AdapterTask, Lifecycle
from service.tasks.residency import Residency
from service.tasks.text_classification import TextClassification
from service.tasks.vqa import VisualQuestionAnswering

log = logging.getLogger(__name__)
CPU_THREADS = 4  # for decoding and tokenising; both leave Python's lock
EAGER_SECONDS = 0.3  # of loading adapters before the first request is taken; the rest are loaded when asked for
HANDLERS = [
    text.sentiment, text.classify, vqa.vqa, adapters.list_adapters, adapters.show_adapter,  adapters.set_alias,
    adapters.remove_alias, adapters.delete_version, adapters.list_models, health.live, health.ready, health.metrics,
    files.version_file,
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Application:
    """The ASGI application and what surrounds it: ``problems`` has a line for each adapter that could not be loaded."""

    asgi: Boundary
    services: Services
    problems: list[str]


def create_app(settings: Settings) -> Application:
    """Load the models and the live adapters, and wire everything together.

    Raises :class:`StartupError` with one line when a model, a setting or the keys file is not usable.
    """
    keys = read_keys(settings.api_keys_file)
    if settings.is_public and not keys and not settings.insecure:
        raise StartupError(
            f"QUICKCHANGE_HOST={settings.host} is reachable from outside; "
            "set QUICKCHANGE_API_KEYS_FILE, or --insecure to go without keys"
        )
    compute, threads = Device(use_all_cores), ThreadPoolExecutor(CPU_THREADS, "prepare")
    registry = _registry(settings)
    residency = Residency(registry.store.read, device_bytes=settings.max_lora_bytes, host_bytes=settings.max_cpu_lora_bytes)
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
        text=Pipeline(text_task, compute, threads, metrics.text, limits),
        vqa=Pipeline(vqa_task, compute, threads, metrics.vqa, limits),
        lifecycle=lifecycle,
        caches={"images": vqa_task.image_cache, "questions": vqa_task.question_cache},
        base_model=settings.base_model,
        lifetime=Lifetime(),
        max_client_batch_size=settings.max_client_batch_size,
        threads=ThreadPoolExecutor(1, "change"),
    )
    metrics.watch(services)
    compute.call(text_task.warm_up)
    access = Access(keys, settings.is_public)
    framework = _litestar(settings, services, metrics, access, compute, threads)
    direct = Direct(framework, services, access, settings.max_body_bytes)
    return Application(Boundary(direct, metrics, settings.request_timeout), services, problems)


def _registry(settings: Settings) -> Registry:
    try:
        return Registry(DirectoryStore(settings.adapters_dir))
    except OSError:
        raise StartupError(
            f"QUICKCHANGE_ADAPTERS_DIR={settings.adapters_dir}: not a folder that can be read and written"
        ) from None


def _tasks(
    settings: Settings, registry: Registry, residency: Residency, compute: Device
) -> tuple[TextClassification, VisualQuestionAnswering]:
    device = _device(settings.device)
    encoder = TextEncoder(load_base(settings.base_model), device, _dtype(settings.dtype, device))
    shared = {locate(settings.base_model, "QUICKCHANGE_BASE_MODEL"): encoder}
    classifier = TextClassifier(encoder, settings.max_lora_rank)
    text_task = TextClassification(
        classifier, TextTokenizer(settings.base_model), registry, compute.call, residency,
        max_chars=settings.max_text_chars,
    )  # fmt: skip
    vqa_task = VisualQuestionAnswering(
        load_image_encoder(settings.image_encoder, device), load_sentence_encoder(settings.sentence_encoder, device, shared),
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
        raise StartupError(f"QUICKCHANGE_DTYPE={name}: this {device.type} has no instructions for it; accepted: auto, fp32")
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
        delay = LoopDelay(metrics.loop_delayed)
        delay.start()
        services.text.start()
        services.vqa.start()
        try:
            yield
        finally:
            delay.stop()
            services.text.stop()
            services.vqa.stop()
            compute.close()
            threads.shutdown()
            services.threads.shutdown()

    uploads = Router("/", route_handlers=[adapters.publish], request_max_body_size=settings.max_adapter_bytes)
    return Litestar(
        [*HANDLERS, uploads, docs_assets()],
        dependencies={
            "services": Provide(provide_services, sync_to_thread=False),
            "metrics": Provide(provide_metrics, sync_to_thread=False),
        },
        exception_handlers={Exception: to_response},
        guards=[access.guard],
        before_request=refuse_while_draining,
        lifespan=[lifespan],
        plugins=[PydanticPlugin(validate_strict=True)],  # "1" is no number in JSON
        request_max_body_size=settings.max_body_bytes,
        openapi_config=_openapi(),
        logging_config=None,
    )


def _openapi() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Quickchange",
        version=version("quickchange"),
        description="One base model in memory; every request wears its own adapter.",
        path="/schema",
        render_plugins=[docs_page()],
        components=Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer")}),
    )
