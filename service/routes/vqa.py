"""``POST /v1/vqa``: an image and a question in, the answer out; as a multipart form or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example, OpenAPIMediaType, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType
from pydantic import ValidationError

from service.errors import BadRequest, UnsupportedMedia
from service.routes.asgi import header
from service.routes.caller import caller_of
from service.routes.form import read_form
from service.routes.guards import KEEPS_TO_PREFIX, Connection, content_type
from service.routes.keys import PREDICT
from service.routes.problems import documented
from service.routes.routed import RoutedOperation
from service.routes.schemas import ScoredAnswer, VqaBody, VqaResult, VqaResults, faults_of
from service.routes.services import Services, respond
from service.tasks.vqa import VqaAnswer, VqaRequest

_TEXT = Schema(type=OpenAPIType.STRING)
_FORM = Schema(
    type=OpenAPIType.OBJECT,
    required=["image"],
    properties={
        "image": Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY, description="a JPEG, PNG or WebP file"),
        "question": Schema(type=OpenAPIType.STRING, examples=["what is on the table"]),
        "questions": Schema(type=OpenAPIType.ARRAY, items=_TEXT, description="or several: repeat the field"),
        "adapter": Schema(type=OpenAPIType.STRING, default="vqa"),
        "top_k": Schema(type=OpenAPIType.INTEGER, minimum=1),
    },
)
_JSON = Schema(
    type=OpenAPIType.OBJECT,
    required=["image"],
    properties={
        "image": Schema(type=OpenAPIType.STRING, description="a JPEG, PNG or WebP file in base64"),
        "question": _TEXT,
        "questions": Schema(type=OpenAPIType.ARRAY, items=_TEXT, min_items=1),
        "adapter": Schema(type=OpenAPIType.STRING, default="vqa"),
        "top_k": Schema(type=OpenAPIType.INTEGER, minimum=1),
    },
)
_EXAMPLE = Example(summary="one question", value={"image": "iVBORw0KGgo…", "question": "what is on the table"})


@dataclass
class _VqaOperation(RoutedOperation):
    """The handler reads two content types, which the framework cannot tell from its signature."""

    def __post_init__(self) -> None:
        super().__post_init__()
        content = {
            "multipart/form-data": OpenAPIMediaType(schema=_FORM),
            "application/json": OpenAPIMediaType(schema=_JSON, examples={"question": _EXAMPLE}),
        }
        self.request_body = RequestBody(content=content, required=True)


@post(
    "/v1/vqa",
    status_code=200,
    opt={"scope": PREDICT, KEEPS_TO_PREFIX: True},
    operation_class=_VqaOperation,
    tags=["predict"],
    summary="Answer a question about an image",
    responses=documented(400, 401, 403, 404, 410, 413, 415, 422, 429, 503, 504),
)
async def vqa(request: Request[Any, Any, Any], services: NamedDependency[Services]) -> Response[VqaResult | VqaResults]:
    """One question gives one result, ``questions`` give a list; the image is encoded once."""
    return await answer(request, await request.body(), services)


async def answer(connection: Connection, body: bytes, services: Services) -> Response[VqaResult | VqaResults]:
    """What the handler answers to these bytes."""
    image, asked = _read(connection, body)
    caller = caller_of(connection.scope)
    caller.check(asked.adapter)
    questions = asked.all_questions()
    services.check_batch(len(questions))
    found = await services.vqa.run(VqaRequest(image, questions, asked.adapter, asked.top_k, caller.routing_key))
    results = [_result(output) for output in found.outputs]
    content: VqaResult | VqaResults = results[0] if asked.question is not None else VqaResults(results=results)
    return respond(content, found, [output.ref for output in found.outputs])


def _read(connection: Connection, body: bytes) -> tuple[str | bytes, VqaBody]:
    """The image, in base64 where it came in JSON, and the rest."""
    kind = content_type(connection)
    if kind == "multipart/form-data":
        return _read_form(read_form(header(connection.scope, b"content-type"), body))
    if kind != "application/json":
        raise UnsupportedMedia(
            f"content type {kind or 'missing'!r} is not read here; send multipart/form-data or application/json"
        )
    asked = VqaBody.read(body)
    return asked.image, asked


def _read_form(parts: Mapping[str, Sequence[str | bytes]]) -> tuple[bytes, VqaBody]:
    images = parts.get("image", ())
    if len(images) != 1 or isinstance(images[0], str):
        raise BadRequest("image is required, as one file of the form")
    for name, values in parts.items():
        if len(values) > 1 and name != "questions":
            raise BadRequest(f"{name[:80]} is given more than once")
        if name != "image" and any(isinstance(value, bytes) for value in values):
            raise BadRequest(f"{name[:80]} must be a string, not a file")
    fields = {name: values if name == "questions" else values[0] for name, values in parts.items()}
    try:
        return images[0], VqaBody.model_validate({**fields, "image": ""})
    except ValidationError as error:
        raise BadRequest(faults_of(error)) from None


def _result(output: VqaAnswer) -> VqaResult:
    return VqaResult(
        answer=output.answer,
        score=output.score,
        answers=[ScoredAnswer(answer=answer, score=score) for answer, score in output.answers],
        adapter=output.ref.name,
        version=output.ref.version,
    )
