"""Adapters over HTTP: list, show, upload a version, delete a version; and ``/v1/models``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from service.routes.caller import Caller
from service.routes.guards import KEEPS_TO_PREFIX, multipart_only
from service.routes.keys import DELETE, READ, WRITE
from service.routes.problems import documented
from service.routes.schemas import AdapterList, AdapterView, Published, VersionView
from service.routes.services import Services
from service.routes.upload import Upload, UploadOperation
from service.routes.views import Model, ModelList
from service.store.bundle import Bundle, Manifest
from service.store.entries import QUARANTINED, Adapter, Version
from service.store.selector import LIVE, Ref
from service.tasks.lifecycle import Lifecycle

MOST_LISTED = 500
CHANGED = documented(400, 401, 403, 404, 409, 410, 429, 503, 507)
PUBLISHED = {
    200: ResponseSpec(Published, generate_examples=False, description="the same version was there already, or a dry run"),
    **documented(400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 503, 504, 507),
}
DryRun = Annotated[bool, QueryParameter(description="check and try the adapter out, and change nothing")]


@get(
    "/v1/adapters",
    opt={"scope": READ, KEEPS_TO_PREFIX: True},
    tags=["adapters"],
    summary="List the adapters",
    responses=documented(400, 401, 403, 429, 503),
    sync_to_thread=True,
)
def list_adapters(
    services: NamedDependency[Services],
    caller: NamedDependency[Caller],
    limit: Annotated[int, QueryParameter(ge=1, le=MOST_LISTED, description="how many at most")] = MOST_LISTED,
    after: Annotated[str, QueryParameter(description="the name to go on after: `next` of the answer before")] = "",
) -> AdapterList:
    """The adapters by name, each with its versions and aliases."""
    found, more = services.lifecycle.registry.page(limit, after, caller.prefix)
    return AdapterList(adapters=_views(found, services.lifecycle), next=more)


@get(
    "/v1/adapters/{name:str}",
    opt={"scope": READ},
    tags=["adapters"],
    summary="Show an adapter",
    responses=documented(400, 401, 403, 404, 429, 503),
    sync_to_thread=True,
)
def show_adapter(name: FromPath[str], services: NamedDependency[Services]) -> AdapterView:
    """One adapter with its versions and aliases."""
    return _views([services.lifecycle.registry.get(name)], services.lifecycle)[0]


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
    request: Request[Any, Any, Any],
    name: FromPath[str],
    services: NamedDependency[Services],
    caller: NamedDependency[Caller],
    dry_run: DryRun = False,
) -> Response[Published]:
    """Check an adapter completely, store it, and point ``alias`` at it; the same files again are the same version."""
    upload = await Upload.read(request)

    def change() -> Response[Published]:
        bundle = upload.bundle()
        if dry_run:
            return _published(name, services.lifecycle.rehearse(name, bundle, upload.alias), bundle, services, dry_run=True)
        ref, is_new = services.lifecycle.publish(name, bundle, upload.alias, caller.who)
        return _published(name, ref, bundle, services, status_code=201 if is_new else 200)

    return await services.change(change)


@delete(
    "/v1/adapters/{name:str}/versions/{version:int}",
    opt={"scope": DELETE},
    tags=["adapters"],
    summary="Delete a version",
    responses=CHANGED,
)
async def delete_version(
    name: FromPath[str], version: FromPath[int], services: NamedDependency[Services], caller: NamedDependency[Caller]
) -> None:
    """Requests that already hold the version finish with it; its number is never used again."""
    await services.change(lambda: services.lifecycle.delete(name, version, caller.who))


@get(
    "/v1/models",
    opt={"scope": READ, KEEPS_TO_PREFIX: True},
    tags=["adapters"],
    summary="The base model and the live adapters, in vLLM's shape",
    responses=documented(400, 401, 403, 429),
    sync_to_thread=True,
)
def list_models(services: NamedDependency[Services], caller: NamedDependency[Caller]) -> ModelList:
    """The base model has no parent; adapters have it as theirs."""
    base = services.base_model
    live = [
        adapter
        for adapter in services.lifecycle.registry.page(len(services.lifecycle.registry), prefix=caller.prefix)[0]
        if LIVE in adapter.aliases
    ]
    adapters = [
        Model(id=adapter.name, root=str(Ref(adapter.name, adapter.aliases[LIVE].target.version)), parent=base) for adapter in live
    ]
    return ModelList(data=[Model(id=base, root=base, parent=None), *adapters])


def _views(adapters: Sequence[Adapter], lifecycle: Lifecycle) -> list[AdapterView]:
    manifests = lifecycle.registry.records.manifests([adapter.name for adapter in adapters])
    return [_view(adapter, manifests.get(adapter.name, {}), lifecycle) for adapter in adapters]


def _view(adapter: Adapter, manifests: Mapping[int, Manifest], lifecycle: Lifecycle) -> AdapterView:
    known = {number: (version, manifests[number]) for number, version in adapter.versions.items() if number in manifests}
    newest = manifests[max(known)] if known else None
    return AdapterView(
        name=adapter.name,
        task=adapter.task,
        labels=list(newest.labels) if newest else [],
        versions=[
            VersionView(
                version=number,
                digest=version.digest or manifest.digest,
                created=manifest.created,
                base={role: ref.name for role, ref in manifest.base.items()},
                metrics=manifest.metrics,
                state=_state(Ref(adapter.name, number), version, lifecycle),
                thresholds=dict(zip(manifest.labels, manifest.thresholds, strict=True)) if manifest.thresholds else None,
            )
            for number, (version, manifest) in known.items()
        ],
        aliases=_aliases(adapter),
        problem_type=newest.problem_type if newest else None,
    )


def _state(ref: Ref, version: Version, lifecycle: Lifecycle) -> str:
    if version.state == QUARANTINED:
        return QUARANTINED
    return "loaded" if lifecycle.is_loaded(ref) else "stored"


def _aliases(adapter: Adapter) -> dict[str, int]:
    return {name: alias.target.version for name, alias in sorted(adapter.aliases.items())}


def _published(
    name: str, ref: Ref | None, bundle: Bundle, services: Services, *, status_code: int = 200, dry_run: bool = False
) -> Response[Published]:
    body = Published(
        name=name,
        version=ref.version if ref else None,
        digest=bundle.manifest.digest,
        task=bundle.manifest.task,
        labels=list(bundle.manifest.labels),
        aliases=_aliases(services.lifecycle.registry.entry(name)),
        dry_run=dry_run,
    )
    return Response(body, status_code=status_code)
