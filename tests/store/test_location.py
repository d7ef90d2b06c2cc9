"""Which URLs name a store, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import StartupError
from service.store.disk import Disk
from service.store.location import ENDPOINTS, open_files
from tests.store.test_files import ONE, bundle
from tests.support.s3 import BUCKET, S3

ACCEPTED = "; accepted: a folder, file:///folder, or s3://bucket/prefix with AWS_* variables"


@pytest.mark.parametrize("written", ["{}", "file://{}", "file://localhost{}"])
def test_a_folder_is_named_by_its_path_or_a_file_url(tmp_path: Path, written: str) -> None:
    folder = tmp_path / "adapters"
    store = open_files(written.format(folder), tmp_path / "unused")
    assert isinstance(store.objects, Disk) and store.objects.root == folder and folder.is_dir()
    assert not (tmp_path / "unused").exists()


def test_what_is_escaped_in_a_file_url_is_read(tmp_path: Path) -> None:
    open_files((tmp_path / "the adapters").as_uri(), tmp_path)
    assert (tmp_path / "the adapters").is_dir()


def test_a_bucket_is_found_by_the_usual_variables(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"s3://{BUCKET}/{tmp_path.name}/below/"
    open_files(url, tmp_path / "unused").publish(ONE, bundle())
    assert open_files(f"s3://{BUCKET}/{tmp_path.name}/below", tmp_path).read(ONE).weights == bundle().weights
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert open_files(url, tmp_path).names() == ["mood"]
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize(
    ("url", "shown", "why"),
    [
        ("", "", "names no folder"),
        ("file://", "file://", "names no folder"),
        ("file://adapters", "file://adapters", "a file URL has three slashes"),
        ("file:///a%00b", "file:///a%00b", "names no folder"),
        ("gs://bucket", "gs://bucket", "no store that is known"),
        ("https://bucket.s3.example", "https://bucket.s3.example", "no store that is known"),
        ("s3://[bucket", "s3://[bucket", "not a URL"),
        ("s3://", "s3://", "'' is no name of a bucket"),
        ("s3:/bucket", "s3:/bucket", "'' is no name of a bucket"),
        ("s3://Bucket", "s3://Bucket", "'Bucket' is no name of a bucket"),
        ("s3://bucket:80/a", "s3://bucket:80/a", "'bucket:80' is no name of a bucket"),
        ("s3://bucket/a//b", "s3://bucket/a//b", "a prefix is made of "),
        ("s3://bucket/../b", "s3://bucket/../b", "a prefix is made of "),
        ("s3://bucket/a b", "s3://bucket/a b", "a prefix is made of "),
        ("s3://bucket/a?secret=KEY", "s3://bucket/a", "a prefix is made of "),
        ("s3://ID:KEY@bucket/a", "s3://…@bucket/a", "credentials belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("s3://ID:KEY/KEY@bucket/a", "s3://…@bucket/a", "credentials belong into AWS_ACCESS_KEY_ID"),
        ("ID:KEY@bucket", "…@bucket", "no store that is known"),
    ],
)
def test_a_wrong_url_is_one_line(url: str, shown: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(StartupError) as refused:
        open_files(url, tmp_path)
    said = str(refused.value)
    assert said.startswith(f"QUICKCHANGE_STORE_URL={shown}: {why}") and said.endswith(ACCEPTED)
    assert "\n" not in said


def test_a_folder_that_cannot_be_one_is_named_with_its_variable(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "below"):
        with pytest.raises(StartupError, match=f"^QUICKCHANGE_ADAPTERS_DIR={folder}: not a folder that can be read and written$"):
            open_files(None, folder)
        with pytest.raises(StartupError, match=f"^QUICKCHANGE_STORE_URL={folder}: not a folder that can be read and written$"):
            open_files(str(folder), tmp_path)


@pytest.mark.parametrize("variable", ENDPOINTS)
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("http//store", "http//store"),
        ("http://", "http://"),
        ("http://[::1", "http://[::1"),
        ("http://store:99999", "http://store:99999"),
        ("ftp://store", "ftp://store"),
        ("http://a b", "http://a b"),
        ("http://user:secret@store", "http://…@store"),
    ],
)
def test_a_wrong_endpoint_is_one_line(
    variable: str, url: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, url)
    with pytest.raises(StartupError) as refused:
        open_files("s3://bucket", tmp_path)
    assert str(refused.value) == f"{variable}={shown}: not an endpoint; accepted: http://host:port or https://host"
