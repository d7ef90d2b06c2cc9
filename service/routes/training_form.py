"""The form that asks for a training: its parts, and how the API's page describes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, TypeVar, cast

from litestar import Request
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType
from pydantic import Field, TypeAdapter, ValidationError

from service.errors import BadRequest
from service.jobs.job import Order
from service.jobs.options import TrainingOptions
from service.routes.asgi import header
from service.routes.form import File, read_form_from
from service.store.alias import Target, check_target
from service.store.bundle import TEXT_CLASSIFICATION
from service.store.selector import check_name
from service.wording import describe, shown

T = TypeVar("T")
DATA = "data"
FIELDS = {
    "name": "the adapter that this makes a version of",
    "task": f"{TEXT_CLASSIFICATION}, which is the default",
    "options": f"a JSON object with any of {', '.join(TrainingOptions.model_fields)}",
    "alias": "an alias to point at the version",
    "require": "a JSON object of rules that the alias has from then on, as when it is moved",
    "gate": "a JSON object of metrics and what each must reach, else nothing is published",
}
REQUIRED = (DATA, "name")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
PLAIN = re.compile(r"[^\w .,()+-]")
MOST_METRICS, LONGEST_NAME = 32, 80
Metric = Annotated[str, Field(min_length=1, max_length=80)]
RULES = TypeAdapter(Annotated[dict[Metric, Annotated[str, Field(max_length=80)]], Field(max_length=MOST_METRICS)])
GATE = TypeAdapter(Annotated[dict[Metric, Annotated[float, Field(allow_inf_nan=False)]], Field(max_length=MOST_METRICS)])


@dataclass
class OrderOperation(Operation):
    """The handler reads its form itself, which the framework cannot tell from its signature."""

    def __post_init__(self) -> None:
        text = OpenAPIType.STRING
        data = Schema(type=text, format=OpenAPIFormat.BINARY, description=f"the labelled texts: {', '.join(SUFFIXES)}")
        parts = {name: Schema(type=text, description=what) for name, what in FIELDS.items()}
        form = Schema(type=OpenAPIType.OBJECT, required=[*REQUIRED], properties={DATA: data, **parts})
        self.request_body = RequestBody(content={"multipart/form-data": OpenAPIMediaType(schema=form)}, required=True)


@dataclass(frozen=True, slots=True)
class OrderForm:
    """The data's file and the other parts as they came."""

    data: File
    fields: Mapping[str, str]

    @classmethod
    async def read(cls, request: Request[Any, Any, Any]) -> OrderForm:
        """The parts of the request's form.

        Raises :class:`BadRequest`, naming the part, when one is missing, unknown, there twice or of the wrong kind.
        """
        parts = await read_form_from(header(request.scope, b"content-type"), request.stream())
        faults = [f"{name} is required" for name in REQUIRED if name not in parts]
        faults += [fault for name, values in parts.items() if (fault := _fault(name, values))]
        if faults:
            raise BadRequest("; ".join(faults[:MOST_METRICS]))
        fields = {name: cast("str", values[0]) for name, values in parts.items() if name != DATA}
        return cls(cast("File", parts[DATA][0]), {name: value for name, value in fields.items() if value})

    def order(self, base_model: str, max_rank: int, who: str) -> Order:
        """What is asked for; raises :class:`BadRequest` or :class:`InvalidInput` for a part that makes no sense."""
        fields = self.fields
        task = fields.get("task", TEXT_CLASSIFICATION)
        if task != TEXT_CLASSIFICATION:
            raise BadRequest(f"task {shown(task)} is not trained here; accepted: {TEXT_CLASSIFICATION}")
        options = TrainingOptions.read(fields.get("options", "{}").encode(), max_rank)
        require = _parsed("require", fields, RULES)
        alias = fields.get("alias")
        if require is not None and alias is None:
            raise BadRequest("require is given without alias; accepted: both, or gate alone")
        check_target(Target({1: 100}, require=require or {}))
        return Order(
            name=check_name(fields.get("name", "")), task=task, source=_source(self.data.filename), data=f"data{self._suffix()}",
            base_model=base_model, options=options.model_dump(exclude_none=True), require=require,
            alias=check_name(alias, "alias") if alias is not None else None,
            gate=_parsed("gate", fields, GATE), who=who, created=datetime.now(UTC),
        )  # fmt: skip

    def _suffix(self) -> str:
        suffix = PurePosixPath(self.data.filename).suffix.lower()
        if suffix not in SUFFIXES:
            raise BadRequest(f"data is a file named {shown(self.data.filename)}; accepted: {', '.join(SUFFIXES)}")
        if not self.data:
            raise BadRequest("data is an empty file; labelled texts are expected")
        return suffix


def _fault(name: str, values: Sequence[str | bytes]) -> str:
    shown_name = shown(name)[1:-1]
    if name not in FIELDS and name != DATA:
        return f"{shown_name} is not a known field; accepted: {DATA}, {', '.join(FIELDS)}"
    if len(values) > 1:
        return f"{shown_name} is given more than once"
    if isinstance(values[0], str) != (name != DATA):
        return f"{shown_name} must be a {'file with a name' if name == DATA else 'string, not a file'}"
    return ""


def _parsed(name: str, fields: Mapping[str, str], kind: TypeAdapter[T]) -> T | None:
    if name not in fields:
        return None
    try:
        return kind.validate_json(fields[name], strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
        said = "is not JSON" if found[0]["type"] == "json_invalid" else "; ".join(describe(found))
        raise BadRequest(f"{name}: {said}; accepted: {FIELDS[name]}") from None


def _source(filename: str) -> str:
    """What manifests and cards call the data: the file's own name, of plain characters."""
    return PLAIN.sub("_", re.split(r"[/\\]", filename)[-1])[-LONGEST_NAME:]
