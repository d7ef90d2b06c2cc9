"""The one place where errors become HTTP."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec

from service import errors
from service.routes.asgi import PROBLEM, Reply, Scope
from service.routes.caller import CALLER, Caller
from service.routes.schemas import Problem
from service.wording import describe

log = logging.getLogger(__name__)
PROBLEM_JSON = "application/problem+json"

STATUS: Mapping[str, int] = {
    errors.BadRequest.code: 400,
    errors.Unauthorized.code: 401,
    errors.Forbidden.code: 403,
    errors.AdapterNotFound.code: 404,
    errors.NotFound.code: 404,
    errors.MethodNotAllowed.code: 405,
    errors.VersionConflict.code: 409,
    errors.AdapterDeleted.code: 410,
    errors.PreconditionFailed.code: 412,
    errors.TooLarge.code: 413,
    errors.UnsupportedMedia.code: 415,
    errors.InvalidInput.code: 422,
    errors.AdapterIncompatible.code: 422,
    errors.RequirementNotMet.code: 422,
    errors.Overloaded.code: 429,
    errors.QuickchangeError.code: 500,
    errors.Unavailable.code: 503,
    errors.DeadlineExceeded.code: 504,
    errors.StoreFull.code: 507,
}
BODY_TOO_LARGE = "the body is larger than this server accepts"
NOT_SERVED = "nothing is served at this address; /schema lists what is"
NO_FIELDS = "a body with the fields of this address is required; /schema lists them"


def documented(*statuses: int) -> dict[int, ResponseSpec]:
    """The error answers of a handler, for the API's page: each status with the codes that it comes with."""
    codes = {status: [code for code, mapped in STATUS.items() if mapped == status] for status in statuses}
    return {
        status: ResponseSpec(Problem, generate_examples=False, description=" or ".join(found), media_type=PROBLEM_JSON)
        for status, found in codes.items()
    }


def refuse(error: Exception, scope: Scope) -> Reply:
    """The answer to any exception, whose code is noted in ``scope``; an unforeseen one is logged, and says nothing."""
    known = error if isinstance(error, errors.QuickchangeError) else _translate(error)
    if known is None:
        log.error("unforeseen error at %s %s", scope["method"], scope["path"], exc_info=error)
        known = errors.QuickchangeError("something went wrong inside the server")
    scope[PROBLEM] = known.code
    status = STATUS[known.code]
    faults = list(known.faults) if isinstance(known, errors.AdapterIncompatible) else None
    problem = Problem(title=HTTPStatus(status).phrase, status=status, code=known.code, detail=_told(known, scope), faults=faults)
    retry = getattr(known, "retry_after", None)
    headers = {"retry-after": str(retry)} if retry is not None else {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return Reply(status, PROBLEM_JSON, headers, problem.model_dump_json(exclude_none=True).encode())


def to_response(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """:func:`refuse` for the framework."""
    reply = refuse(error, cast("Scope", request.scope))
    return Response(reply.body, status_code=reply.status, headers=reply.headers, media_type=reply.kind)


def _told(error: errors.QuickchangeError, scope: Scope) -> str:
    """The error's text, without the names of adapters that its caller may not know of."""
    caller: Caller | None = scope.get(CALLER)
    if isinstance(error, errors.AdapterNotFound) and caller is not None and caller.prefix:
        return error.said
    return str(error)


def _translate(error: Exception) -> errors.QuickchangeError | None:
    """Our error for one of the framework's, with our words; None for what nobody foresaw."""
    if isinstance(error, ValidationException):
        found = getattr(error.__cause__, "errors", None)
        lines = describe(found) if isinstance(found, list | tuple) else _parameter_faults(error)
        return errors.BadRequest("; ".join(lines) or NO_FIELDS)
    if isinstance(error, UnicodeDecodeError | RecursionError):  # what the framework's JSON reader lets through
        return errors.BadRequest("the body cannot be read: it is not UTF-8, or is nested too deeply")
    if not isinstance(error, HTTPException) or error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return None
    by_status: dict[int, errors.QuickchangeError] = {
        404: errors.NotFound(NOT_SERVED),
        405: errors.MethodNotAllowed("this address does not accept that method; /schema lists what it accepts"),
        413: errors.TooLarge(BODY_TOO_LARGE),
    }
    return by_status.get(error.status_code, errors.BadRequest("the body cannot be read as the content type it claims"))


def _parameter_faults(error: ValidationException) -> list[str]:
    """A line for each parameter of the address or the headers that is not what its handler takes."""
    found = error.extra if isinstance(error.extra, list) else []
    return [
        f"{fault['key']} in the {fault['source']} is not valid; /schema says what is accepted"
        for fault in found
        if "source" in fault
    ]
