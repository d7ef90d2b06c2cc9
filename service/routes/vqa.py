"""``POST /v1/vqa``: an image and a question in, the answer out; as a multipart form or as JSON."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from litestar import Request, Response, post
from litestar.datastructures import UploadFile
from litestar.di import NamedDependency
from litestar.openapi.spec import Example, OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType
from pydantic import ValidationError

from service.errors import BadRequest, InvalidInput, UnsupportedMedia
from service.routes.guards import content_type
from service.routes.problems import documented
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
class _VqaOperation(Operation):
    """The handler reads two content types, which the framework cannot tell from its signature."""

    def __post_init__(self) -> None:
        content = {
            "multipart/form-data": OpenAPIMediaType(schema=_FORM),
            "application/json": OpenAPIMediaType(schema=_JSON, examples={"question": _EXAMPLE}),
        }
        self.request_body = RequestBody(content=content, required=True)


@post(
    "/v1/vqa",
    status_code=200,
    operation_class=_VqaOperation,
    tags=["predict"],
    summary="Answer a question about an image",
    responses=documented(400, 401, 404, 410, 413, 415, 422, 429, 503, 504),
)
async def vqa(request: Request[Any, Any, Any], services: NamedDependency[Services]) -> Response[VqaResult | VqaResults]:
    """One question gives one result, ``questions`` give a list; the image is encoded once."""
    image, body = await _read(request)
    questions = body.all_questions()
    services.check_batch(len(questions))
    answer = await services.vqa.run(VqaRequest(image, questions, body.adapter, body.top_k))
    results = [_result(output) for output in answer.outputs]
    content: VqaResult | VqaResults = results[0] if body.question is not None else VqaResults(results=results)
    return respond(content, answer, [output.ref for output in answer.outputs])


async def _read(request: Request[Any, Any, Any]) -> tuple[bytes, VqaBody]:
    kind = content_type(request)
    if kind == "multipart/form-data":
        return await _read_form(request)
    if kind != "application/json":
        raise UnsupportedMedia(
            f"content type {kind or 'missing'!r} is not read here; send multipart/form-data or application/json"
        )
    body = VqaBody.read(await request.body())
    try:
        return base64.b64decode(body.image, validate=True), body
    except (binascii.Error, ValueError):
        raise InvalidInput("image is not base64") from None


async def _read_form(request: Request[Any, Any, Any]) -> tuple[bytes, VqaBody]:
    form = await request.form()
    uploads = form.getall("image", [])
    if len(uploads) != 1 or not isinstance(uploads[0], UploadFile):
        raise BadRequest("image is required, as one file of the form")
    repeated = sorted(name for name in form if name != "questions" and len(form.getall(name)) > 1)
    if repeated:
        raise BadRequest(f"{repeated[0][:80]} is given more than once")
    fields = {name: form.getall(name) if name == "questions" else form[name] for name in form if name != "image"}
    try:
        return await uploads[0].read(), VqaBody.model_validate({**fields, "image": ""})
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
