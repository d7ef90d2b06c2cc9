"""The one error of the client that is not about its caller's arguments."""

from __future__ import annotations

import httpx
from pydantic import ValidationError

from service.errors import QuickchangeError
from service.routes.schemas import Problem

UNREACHABLE, BAD_ANSWER = "unreachable", "bad_answer"


class ServerError(QuickchangeError):
    """The server refused the call, could not be reached, or answered what no Quickchange server answers.

    ``status`` is the answer's, or None where none came; ``code`` is the server's stable word, ``unreachable`` or
    ``bad_answer``; ``detail`` is one line; ``faults`` lists every fault of a refused adapter.
    """

    def __init__(self, detail: str, code: str = BAD_ANSWER, status: int | None = None, faults: tuple[str, ...] = ()) -> None:
        super().__init__(detail if code in (UNREACHABLE, BAD_ANSWER) else f"{status} {code}: {detail}")
        self.detail, self.code, self.status, self.faults = detail, code, status, faults


def unreachable(url: str) -> ServerError:
    """No answer came from this address."""
    return ServerError(f"no server answers at {url}; start one with 'make serve', or give another address", UNREACHABLE)


def refusal(response: httpx.Response) -> ServerError:
    """What an answer that is no success means."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        return bad_answer(response)
    return ServerError(problem.detail, problem.code, response.status_code, tuple(problem.faults or ()))


def bad_answer(response: httpx.Response) -> ServerError:
    """An answer that is none of a Quickchange server."""
    url = response.request.url
    said = f"{url.scheme}://{url.netloc.decode()} answered {response.status_code}, but is no Quickchange server"
    return ServerError(said, status=response.status_code)
