"""Every error that Quickchange raises on purpose.

::

    QuickchangeError
    ├── BadRequest             the request's form is wrong: JSON, fields, types
    ├── Unauthorized           no key, or one that nobody was given
    ├── Forbidden              a key without the scope
    ├── AdapterNotFound        no such adapter, alias or version
    │   └── AdapterDeleted     there was such a version, and it was deleted
    ├── NotFound               no such address
    ├── MethodNotAllowed       the address exists, the method does not
    ├── VersionConflict        an alias still points there
    ├── PreconditionFailed     somebody else has moved the alias
    ├── TooLarge               body, pixels, parts or rows over a limit
    ├── UnsupportedMedia       not an image or a content type that is read
    ├── InvalidInput           readable but wrong
    │   ├── AdapterIncompatible  a broken adapter, or one for another base model
    │   └── RequirementNotMet    a version below what an alias requires
    ├── Overloaded             the queue is full, or an API key's limit reached
    ├── Unavailable            draining or not ready
    ├── DeadlineExceeded       the request took longer than it may
    ├── StoreFull              no space for another adapter version or training
    ├── ForwardFailed          the model itself failed on this row
    └── StartupError           the server cannot start; never sent to a client

``code`` is the stable word that clients see; ``service.routes.problems`` maps it to a status.
"""

from __future__ import annotations

from collections.abc import Sequence


class QuickchangeError(Exception):
    """Root of the tree; its text is one line written for the person who caused it."""

    code = "internal"


class BadRequest(QuickchangeError):
    """The request's form is wrong: not JSON, a missing, unknown or wrongly typed field."""

    code = "bad_request"


class Unauthorized(QuickchangeError):
    """The call needs an API key, and none or an unknown one came with it."""

    code = "unauthorized"


class Forbidden(QuickchangeError):
    """The API key does not carry the scope that the call needs."""

    code = "forbidden"


class AdapterNotFound(QuickchangeError):
    """No adapter, alias or version has that name; ``others`` tells of those that there are, to whom may see them all."""

    code = "adapter_not_found"

    def __init__(self, said: str, others: str = "") -> None:
        self.said = said
        super().__init__(f"{said}; {others}" if others else said)


class AdapterDeleted(AdapterNotFound):
    """The version existed and was deleted."""

    code = "adapter_deleted"


class NotFound(QuickchangeError):
    """Nothing is served at that address."""

    code = "not_found"


class MethodNotAllowed(QuickchangeError):
    """The address exists, but not for that method."""

    code = "method_not_allowed"


class VersionConflict(QuickchangeError):
    """The change contradicts the adapter's present state."""

    code = "version_conflict"


class PreconditionFailed(QuickchangeError):
    """The alias is not at the generation that the caller expects: somebody else has moved it."""

    code = "precondition_failed"


class TooLarge(QuickchangeError):
    """A body, image, part or batch is over its limit."""

    code = "too_large"


class UnsupportedMedia(QuickchangeError):
    """The bytes are not an image, or a content type, that this server reads."""

    code = "unsupported_media"


class InvalidInput(QuickchangeError):
    """The request is readable but cannot be answered."""

    code = "invalid_input"


class AdapterIncompatible(InvalidInput):
    """An adapter is broken or does not fit the base model; ``faults`` lists every reason found, or the first and a count."""

    code = "adapter_incompatible"
    most = 50

    def __init__(self, faults: Sequence[str]) -> None:
        more = len(faults) - self.most  # one more than that is such a count, in a copy
        self.faults = (*faults[: self.most], f"and {more} more") if more > 1 else tuple(faults)
        super().__init__("; ".join(self.faults))

    def __reduce__(self) -> tuple[type[AdapterIncompatible], tuple[tuple[str, ...]]]:
        return type(self), (self.faults,)  # what a copy is made from


class RequirementNotMet(InvalidInput):
    """A version does not meet what the alias requires of its metrics."""

    code = "requirement_not_met"


class Overloaded(QuickchangeError):
    """The queue is full, or an API key's limit reached; try again after ``retry_after`` seconds."""

    code = "overloaded"

    def __init__(self, said: str, retry_after: int = 1) -> None:
        self.retry_after = retry_after
        super().__init__(said)


class Unavailable(QuickchangeError):
    """The server is starting or draining; try again after ``retry_after`` seconds."""

    code = "unavailable"
    retry_after = 2


class DeadlineExceeded(QuickchangeError):
    """The answer was not ready before the request's deadline."""

    code = "timeout"


class StoreFull(QuickchangeError):
    """The adapter store, or the folder of the training jobs, cannot take another byte."""

    code = "store_full"


class ForwardFailed(QuickchangeError):
    """The model failed on this row, and on this row only."""

    code = "internal"


class StartupError(QuickchangeError):
    """The server cannot start: a missing model, a bad setting, a taken port."""

    code = "startup"
