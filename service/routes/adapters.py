"""Adapters over HTTP: list, show, upload a version, move an alias, delete a version; and ``/v1/models``."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter

from service.errors import AdapterNotFound
from service.routes.guards import DELETE, WRITE, json_only, multipart_only
from service.routes.problems import documented
from service.routes.schemas import AdapterList, AdapterView, AliasBody, Model, ModelList, Published, VersionView
from service.routes.services import Services
from service.routes.upload import Upload, UploadOperation
from service.store.bundle import Bundle
from service.store.registry import Adapter
from service.store.selector import LIVE, Ref
from service.tasks.lifecycle import Lifecycle

CHANGED = documented(400, 401, 403, 404, 409, 410, 503, 507)
PUBLISHED = {
    200: ResponseSpec(Published, generate_examples=False, description="the same version was there already, or a dry run"),
    **documented(400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 503, 504, 507),
}
DryRun = Annotated[bool, QueryParameter(description="check and try the adapter out, and change nothing")]


@get("/v1/adapters", tags=["adapters"], summary="List the adapters", sync_to_thread=True)
def list_adapters(services: NamedDependency[Services]) -> AdapterList:
    """Every adapter with its versions and aliases."""
    return AdapterList(adapters=[_view(adapter, services.lifecycle) for adapter in services.lifecycle.registry.adapters()])


@get(
    "/v1/adapters/{name:str}",
    tags=["adapters"],
    summary="Show an adapter",
    responses=documented(400, 401, 404),
    sync_to_thread=True,
)
def show_adapter(name: FromPath[str], services: NamedDependency[Services]) -> AdapterView:
    """One adapter with its versions and aliases."""
    return _view(services.lifecycle.registry.get(name), services.lifecycle)


@post(
    "/v1/adapters/{name:str}/versions",
    opt={"scope": WRITE},
    guards=[multipart_only],
    operation_class=UploadOperation,
    tags=["adapters"],
    summary="Upload a version",
    responses=PUBLISHED,
)
async def publish(
    request: Request[Any, Any, Any], name: FromPath[str], services: NamedDependency[Services], dry_run: DryRun = False
) -> Response[Published]:
    """Check an adapter completely, store it, and point ``alias`` at it; the same files again are the same version."""
    upload = await Upload.read(request)

    def change() -> Response[Published]:
        bundle = upload.bundle()
        if dry_run:
            return _published(name, services.lifecycle.rehearse(name, bundle, upload.alias), bundle, services, dry_run=True)
        ref, is_new = services.lifecycle.publish(name, bundle, upload.alias)
        return _published(name, ref, bundle, services, status_code=201 if is_new else 200)

    return await services.change(change)


@put(
    "/v1/adapters/{name:str}/aliases/{alias:str}",
    opt={"scope": WRITE},
    guards=[json_only],
    tags=["adapters"],
    summary="Point an alias",
    responses=documented(400, 401, 403, 404, 410, 415, 422, 503, 507),
)
async def set_alias(
    name: FromPath[str], alias: FromPath[str], data: JSONBody[AliasBody], services: NamedDependency[Services]
) -> AdapterView:
    """The next request for the alias is answered by this version."""

    def change() -> AdapterView:
        services.lifecycle.set_alias(name, alias, data.version)
        return _view(services.lifecycle.registry.get(name), services.lifecycle)

    return await services.change(change)


@delete(
    "/v1/adapters/{name:str}/aliases/{alias:str}",
    opt={"scope": DELETE},
    tags=["adapters"],
    summary="Remove an alias",
    responses=CHANGED,
)
async def remove_alias(name: FromPath[str], alias: FromPath[str], services: NamedDependency[Services]) -> None:
    """The adapter is not selected by it any more; a version that no alias points at can be deleted."""
    await services.change(lambda: services.lifecycle.remove_alias(name, alias))


@delete(
    "/v1/adapters/{name:str}/versions/{version:int}",
    opt={"scope": DELETE},
    tags=["adapters"],
    summary="Delete a version",
    responses=CHANGED,
)
async def delete_version(name: FromPath[str], version: FromPath[int], services: NamedDependency[Services]) -> None:
    """Requests that already hold the version finish with it; its number is never used again."""
    await services.change(lambda: services.lifecycle.delete(name, version))


@get("/v1/models", tags=["adapters"], summary="The base model and the live adapters, in vLLM's shape", sync_to_thread=True)
def list_models(services: NamedDependency[Services]) -> ModelList:
    """The base model has no parent; adapters have it as theirs."""
    base = services.base_model
    live = [adapter for adapter in services.lifecycle.registry.adapters() if LIVE in adapter.aliases]
    adapters = [Model(id=adapter.name, root=str(Ref(adapter.name, adapter.aliases[LIVE])), parent=base) for adapter in live]
    return ModelList(data=[Model(id=base, root=base, parent=None), *adapters])


def _view(adapter: Adapter, lifecycle: Lifecycle) -> AdapterView:
    manifests = lifecycle.registry.manifests(adapter)
    return AdapterView(
        name=adapter.name,
        task=adapter.task,
        labels=list(manifests[max(manifests)].labels) if manifests else [],
        versions=[
            VersionView(
                version=version,
                digest=manifest.digest,
                created=manifest.created,
                base={role: ref.name for role, ref in manifest.base.items()},
                metrics=manifest.metrics,
                state="loaded" if lifecycle.is_loaded(Ref(adapter.name, version)) else "stored",
            )
            for version, manifest in manifests.items()
        ],
        aliases=dict(adapter.aliases),
    )


def _published(
    name: str, ref: Ref | None, bundle: Bundle, services: Services, *, status_code: int = 200, dry_run: bool = False
) -> Response[Published]:
    try:
        aliases = dict(services.lifecycle.registry.get(name).aliases)
    except AdapterNotFound:  # a dry run
        aliases = {}
    body = Published(
        name=name,
        version=ref.version if ref else None,
        digest=bundle.manifest.digest,
        task=bundle.manifest.task,
        labels=list(bundle.manifest.labels),
        aliases=aliases,
        dry_run=dry_run,
    )
    return Response(body, status_code=status_code)
