"""The page at ``/schema``: Swagger UI, from files installed with the server, so that it works without a network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from litestar import Router
from litestar.handlers import BaseRouteHandler
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.static_files import create_static_files_router

from service.errors import NotFound
from service.routes.guards import Connection
from service.routes.keys import PUBLIC
from service.routes.problems import NOT_SERVED

PAGE = "/schema"
ASSETS = f"{PAGE}/assets"
PACKAGE = "flask_openapi_swagger"  # carries Swagger UI's distribution; its Flask part is not used


def docs_page() -> SwaggerRenderPlugin:
    """The page's renderer; it points at :func:`docs_assets`."""
    return SwaggerRenderPlugin(
        path="/",
        js_url=f"{ASSETS}/js/swagger-ui-bundle.js",
        standalone_preset_js_url=f"{ASSETS}/js/swagger-ui-standalone-preset.js",
        css_url=f"{ASSETS}/css/swagger-ui.css",
        favicon="",
    )


def docs_router() -> Router:
    """Where the page and the description that it shows are served, to everybody."""
    return Router(PAGE, route_handlers=[], opt={"scope": PUBLIC}, include_in_schema=False)


def docs_assets() -> Router:
    """The script and style of the page."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(PACKAGE)
    folder = Path(spec.origin).parent / "templates" / "swagger"
    there = {f"{ASSETS}/{file.relative_to(folder).as_posix()}" for file in folder.rglob("*") if file.is_file()}

    def is_there(connection: Connection, _: BaseRouteHandler) -> None:
        # The framework would ask the disk for any name, and some make the disk's answer an error.
        if connection.scope["path"] not in there:
            raise NotFound(NOT_SERVED)

    return create_static_files_router(ASSETS, [folder], opt={"scope": PUBLIC}, guards=[is_there], include_in_schema=False)
