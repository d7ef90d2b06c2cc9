"""A server whose adapters lie in a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service.errors import StartupError
from service.store.bundle import Bundle
from tests.support.s3 import BUCKET, S3, variables

if TYPE_CHECKING:
    from tests.conftest import Start


def test_an_adapter_in_a_bucket_answers_from_every_server_that_is_started_on_it(
    start: Start, bundles: dict[str, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with S3() as s3:
        for name, value in variables(s3.url).items():
            monkeypatch.setenv(name, value)
        url = f"s3://{BUCKET}/production"
        first = start(store_url=url)
        assert first.publish("irony", bundles["irony"]).status_code == 201
        second = start(store_url=url)
        answers = [server.post("/v1/classify", {"text": "so it goes", "adapter": "irony"}) for server in (first, second)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].json() == answers[1].json()
    assert not (tmp_path / "adapters/irony").exists()
    assert second.post("/v1/classify", {"text": "so it goes", "adapter": "irony"}).status_code == 200
    with pytest.raises(StartupError, match=f"^QUICKCHANGE_STORE_URL={url}: the adapter store cannot be read now"):
        start(store_url=url)
