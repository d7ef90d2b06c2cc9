"""``POST /v1/sentiment`` and ``POST /v1/classify``: texts in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Sequence

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from service.routes.guards import json_only
from service.routes.schemas import ClassifyBody, SentimentBody, TextResult, TextResults
from service.routes.services import Services, respond
from service.tasks.text_classification import Classification, TextRequest


@post("/v1/sentiment", status_code=200, guards=[json_only], tags=["predict"], summary="Classify the sentiment of a text")
async def sentiment(data: JSONBody[SentimentBody], services: NamedDependency[Services]) -> Response[TextResult | TextResults]:
    """One text gives one result, ``texts`` give a list; any text adapter may be named."""
    request = TextRequest(data.all_texts(), [data.adapter], data.truncate, data.top_k)
    return await _classify(request, services, single=data.text is not None)


@post("/v1/classify", status_code=200, guards=[json_only], tags=["predict"], summary="Classify texts by any adapters")
async def classify(data: JSONBody[ClassifyBody], services: NamedDependency[Services]) -> Response[TextResult | TextResults]:
    """One text through one adapter gives one result; several of either give a list."""
    request = TextRequest(data.all_texts(), data.all_adapters(), data.truncate, data.top_k)
    return await _classify(request, services, single=data.text is not None and data.adapter is not None)


async def _classify(request: TextRequest, services: Services, *, single: bool) -> Response[TextResult | TextResults]:
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
        )
        for output in outputs
    ]
