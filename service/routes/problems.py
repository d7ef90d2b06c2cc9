"""The one place where errors become HTTP."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from service import errors
from service.routes.schemas import Problem

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
    errors.TooLarge.code: 413,
    errors.UnsupportedMedia.code: 415,
    errors.InvalidInput.code: 422,
    errors.AdapterIncompatible.code: 422,
    errors.Overloaded.code: 429,
    errors.QuickchangeError.code: 500,
    errors.Unavailable.code: 503,
    errors.DeadlineExceeded.code: 504,
    errors.StoreFull.code: 507,
}
WORDING = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be a JSON object",
    "too_short": "must not be empty",
    "greater_than_equal": "is too small",
}


def to_response(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """An ``application/problem+json`` answer for any exception; an unforeseen one is logged and says nothing."""
    known = error if isinstance(error, errors.QuickchangeError) else _translate(error)
    if known is None:
        log.error("unforeseen error at %s %s", request.method, request.url.path, exc_info=error)
        known = errors.QuickchangeError("something went wrong inside the server")
    status = STATUS[known.code]
    faults = list(known.faults) if isinstance(known, errors.AdapterIncompatible) else None
    problem = Problem(title=HTTPStatus(status).phrase, status=status, code=known.code, detail=str(known), faults=faults)
    retry = getattr(known, "retry_after", None)
    headers = {"retry-after": str(retry)} if retry is not None else {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return Response(problem.content(), status_code=status, headers=headers, media_type=PROBLEM_JSON)


def _translate(error: Exception) -> errors.QuickchangeError | None:
    """Our error for one of the framework's, with our words; None for what nobody foresaw."""
    if isinstance(error, ValidationException):
        return errors.BadRequest(describe(getattr(error.__cause__, "errors", None)))
    if not isinstance(error, HTTPException) or error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return None
    by_status: dict[int, errors.QuickchangeError] = {
        404: errors.NotFound("nothing is served at this address; /schema lists what is"),
        405: errors.MethodNotAllowed("this address does not accept that method; /schema lists what it accepts"),
        413: errors.TooLarge("the body is larger than this server accepts"),
    }
    return by_status.get(error.status_code, errors.BadRequest("the body cannot be read as the content type it claims"))


def describe(found: Sequence[Mapping[str, Any]] | None) -> str:
    """One line for pydantic's list of errors: each field and what is wrong with it."""
    if not isinstance(found, list | tuple) or not found:
        return "a JSON body is required"
    return "; ".join(f"{_place(entry['loc'])}{_wording(entry)}" for entry in found[:10])


def _place(location: Sequence[str | int]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{str(part)[:80]}" for part in location).removeprefix(".")
    return f"{path} " if path else ""


def _wording(entry: Mapping[str, Any]) -> str:
    if entry["type"] == "one_of":
        return str(entry["msg"])
    text = WORDING.get(entry["type"], "is not valid")
    least = entry.get("ctx", {}).get("ge")
    return f"must be at least {least}" if least is not None else text
