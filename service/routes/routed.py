"""How the API's page describes the header that keeps a client with one version of a canary."""

from __future__ import annotations

from dataclasses import dataclass

from litestar.openapi.spec import Operation, Parameter, Schema
from litestar.openapi.spec.enums import OpenAPIType

from service.routes.guards import MOST_ROUTING_KEY


@dataclass
class RoutedOperation(Operation):
    """A prediction; the guard reads the header, which the framework cannot tell from the handler's signature."""

    def __post_init__(self) -> None:
        what = "whom a canary is to treat alike: the same key always gets the same version"
        schema = Schema(type=OpenAPIType.STRING, max_length=MOST_ROUTING_KEY)
        routing_key = Parameter(name="x-routing-key", param_in="header", required=False, description=what, schema=schema)
        self.parameters = [*(self.parameters or []), routing_key]
