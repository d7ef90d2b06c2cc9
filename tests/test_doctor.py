"""``quickchange doctor``: what it looks at, and that only what would stop the server makes it fail."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from service import doctor
from service.models import kernels
from service.settings import Settings
from tests.support.command import fails, quickchange, words


@pytest.fixture
def flags(tiny_base: Path, tmp_path: Path) -> list[str]:
    return ["--base-model", str(tiny_base), "--adapters-dir", str(tmp_path / "adapters"), "--port", "0"]


def examine(*flags: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code, and the state and detail of each check."""
    result = quickchange("doctor", "--json", *flags)
    report = json.loads(result.stdout)
    assert report["status"] == ("failure" if result.exit_code else "ok")
    return result.exit_code, {check["what"]: (check["state"], check["detail"]) for check in report["checks"]}


def test_a_machine_that_can_serve(flags: list[str], tiny_base: Path, tmp_path: Path) -> None:
    code, found = examine(*flags)
    assert code == 0 and not [what for what, (state, _) in found.items() if state == "failure"]
    assert list(found) == [
        "processor", "threads", "kernels", "sqlite", "adapters folder", "fsync", "free space", "base model", "image encoder",
        "sentence encoder", "port", "keys",
    ]  # fmt: skip
    assert found["base model"] == ("ok", str(tiny_base)) and "which will be made" in found["adapters folder"][1]
    assert not (tmp_path / "adapters").exists() and "cores" in found["threads"][1]


def test_what_would_stop_the_server_is_told(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "adapters").write_text("no folder")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        broken = ["--port", port, "--image-encoder", "eye", "--sentence-encoder", "./none", "--api-keys-file", "./no-keys"]
        code, found = examine(*flags, *broken)
        table = quickchange("doctor", *flags, *broken)
    assert code == table.exit_code == 1
    wrong = {what: detail for what, (state, detail) in found.items() if state == "failure"}
    assert list(wrong) == ["adapters folder", "image encoder", "sentence encoder", "port", "keys"]
    assert f"127.0.0.1:{port} is taken" in wrong["port"] and "no such image encoder" in wrong["image encoder"]
    assert "✗ keys QUICKCHANGE_API_KEYS_FILE=no-keys: no readable file there" in words(table)
    fails(quickchange("doctor", "--port", "99999"), "QUICKCHANGE_PORT=99999")


def test_sqlites_with_the_bug_of_the_write_ahead_log_are_warned_of() -> None:
    for version, state in (
        ((3, 6, 23), "ok"),
        ((3, 7, 0), "warning"),
        ((3, 51, 2), "warning"),
        ((3, 51, 3), "ok"),
        ((3, 52, 0), "ok"),
    ):
        assert doctor.sqlite(version).state == state
    assert doctor.sqlite((3, 40, 1)).detail.startswith("3.40.1 ")


def test_the_processor_is_told_by_its_flags(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor : 0\nflags\t\t: fpu avx2 amx_bf16\n\nprocessor : 1\nflags : fpu\n")
    assert doctor.processor(file) == doctor.Check("processor", "ok", "avx2 yes, avx512_bf16 no, avx512_vnni no, amx_bf16 yes")
    file.write_text("flags : fpu sse2\n")
    assert doctor.processor(file).state == "warning"
    assert doctor.processor(tmp_path / "none").state == "warning"


def test_kernels_for_fewer_instructions_than_there_are_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    for level, state in (("v0", "warning"), (kernels.highest, "ok"), (None, "warning")):
        monkeypatch.setattr(kernels, "level", level)
        monkeypatch.setattr(kernels, "available", level is not None)
        found = doctor.kernels()
        assert found.state == state and (f"level {level}" in found.detail) == (level is not None)


def test_a_public_address_needs_keys(tmp_path: Path) -> None:
    public = Settings(host="0.0.0.0")
    assert doctor.keys(public).state == "failure"
    assert doctor.keys(public.model_copy(update={"insecure": True})).state == "warning"
    (tmp_path / "keys").write_text("")
    assert doctor.keys(public.model_copy(update={"api_keys_file": tmp_path / "keys"})).state == "ok"
    assert doctor.keys(Settings()).state == "ok"


def test_a_model_that_a_hub_may_have_is_no_reason_to_fail() -> None:
    *_, sentence = doctor.models(Settings(base_model="./none", sentence_encoder="nobody/no-such-model"))
    assert sentence.state == "warning" and "would ask a hub" in sentence.detail
    base = next(doctor.models(Settings(base_model="./none")))
    assert base.state == "failure" and base.detail.startswith("QUICKCHANGE_BASE_MODEL=./none: ")


def test_a_small_write_is_timed(tmp_path: Path) -> None:
    assert 0 < doctor.fsync_seconds(tmp_path) < 5
    with pytest.raises(FileNotFoundError):
        doctor.fsync_seconds(tmp_path / "none")
