"""Places that keep files, for the tests of what is built on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.store.files import ObjectStore
from service.store.location import open_files
from tests.support.s3 import BUCKET, S3, variables


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/registry.db"
    new: Callable[[], str] = request.getfixturevalue("postgres")
    return new()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    with S3() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The server, with the environment in which clients find it."""
    for name, value in variables(s3_server.url).items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty store of each kind."""
    if request.param == "disk":
        return open_files(None, tmp_path / "adapters")
    request.getfixturevalue("s3")
    return open_files(f"s3://{BUCKET}/{tmp_path.name}", tmp_path)
