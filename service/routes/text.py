"""``POST /v1/sentiment`` and ``POST /v1/classify``: texts in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, cast

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.params import Body

from service.routes.caller import Caller
from service.routes.guards import KEEPS_TO_PREFIX, json_only
from service.routes.keys import PREDICT
from service.routes.problems import documented
from service.routes.routed import RoutedOperation
from service.routes.schemas import ClassifyBody, SentimentBody, TextResult, TextResults
from service.routes.services import Services, respond
from service.tasks.text_classification import Classification, TextRequest

SENTIMENT = Body(examples=[Example(summary="one text", value={"text": "I love how quickly this works"})])
CLASSIFY = Body(
    examples=[
        Example(summary="one text, two adapters", value={"text": "Oh great, another Monday", "adapters": ["irony", "emotion"]})
    ]
)
RESULT = {"adapter": "emotion", "version": 1, "truncated": False}
ONE = {"label": "joy", "score": 0.8, "scores": {"joy": 0.8, "anger": 0.2}, **RESULT}
SEVERAL = {"label": "joy", "score": 0.9, "scores": {"joy": 0.9, "love": 0.6, "anger": 0.1}, **RESULT, "labels": ["joy", "love"]}
VALUES = {"label": "intensity", "score": 3.7, "scores": {"intensity": 3.7}, **RESULT}
EXAMPLES = [
    Example(summary="one label of several", value=ONE),
    Example(summary="any number of labels: those that reach their threshold", value=SEVERAL),
    Example(summary="values", value=VALUES),
]
ANSWERS = {
    200: ResponseSpec(
        cast("type[Any]", TextResult | TextResults), generate_examples=False, description="the answers", examples=EXAMPLES
    ),
    **documented(400, 401, 403, 404, 410, 413, 415, 422, 429, 503, 504),
}


@post(
    "/v1/sentiment",
    status_code=200,
    opt={"scope": PREDICT, KEEPS_TO_PREFIX: True},
    operation_class=RoutedOperation,
    guards=[json_only],
    tags=["predict"],
    summary="Classify the sentiment of a text",
    responses=ANSWERS,
)
async def sentiment(
    data: Annotated[SentimentBody, SENTIMENT], services: NamedDependency[Services], caller: NamedDependency[Caller]
) -> Response[TextResult | TextResults]:
    """One text gives one result, ``texts`` give a list; any text adapter may be named."""
    request = TextRequest(data.all_texts(), [data.adapter], data.truncate, data.top_k, caller.routing_key)
    return await _classify(request, services, caller, single=data.text is not None)


@post(
    "/v1/classify",
    status_code=200,
    opt={"scope": PREDICT, KEEPS_TO_PREFIX: True},
    operation_class=RoutedOperation,
    guards=[json_only],
    tags=["predict"],
    summary="Classify texts by any adapters",
    responses=ANSWERS,
)
async def classify(
    data: Annotated[ClassifyBody, CLASSIFY], services: NamedDependency[Services], caller: NamedDependency[Caller]
) -> Response[TextResult | TextResults]:
    """One text through one adapter gives one result; several of either give a list."""
    request = TextRequest(data.all_texts(), data.all_adapters(), data.truncate, data.top_k, caller.routing_key)
    return await _classify(request, services, caller, single=data.text is not None and data.adapter is not None)


async def _classify(
    request: TextRequest, services: Services, caller: Caller, *, single: bool
) -> Response[TextResult | TextResults]:
    caller.check(*request.adapters)
    services.check_batch(request.rows)
    answer = await services.text.run(request)
    results = _results(answer.outputs)
    body: TextResult | TextResults = results[0] if single else TextResults(results=results)
    return respond(body, answer, [output.ref for output in answer.outputs])


def _results(outputs: Sequence[Classification]) -> list[TextResult]:
    return [
        TextResult(
            label=output.label,
            score=output.score,
            scores=output.scores,
            adapter=output.ref.name,
            version=output.ref.version,
            truncated=output.truncated,
            labels=output.labels,
        )
        for output in outputs
    ]
