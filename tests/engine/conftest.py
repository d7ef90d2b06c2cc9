"""What these tests provoke is not for the error log of a server that other tests share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def unheard() -> Iterator[None]:
    logger = logging.getLogger("service.engine")
    handlers, logger.handlers = logger.handlers, []
    yield
    logger.handlers = handlers
