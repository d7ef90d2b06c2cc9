"""``quickchange adapters verify``: every fault of every version on disk, and exit code 1 where there is one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from service.store.bundle import Bundle
from service.store.layout import CONFIG, IMAGES, MANIFEST, WEIGHTS
from tests.support.bundles import text_bundle
from tests.support.command import fails, quickchange, words
from training.bundles import write_bundle


@pytest.fixture
def adapters(bundles: dict[str, Bundle], tmp_path: Path) -> Path:
    """A folder as the server keeps it, with nothing wrong in it."""
    for name, version in (("irony", 1), ("irony", 2), ("irony", 10), ("vqa", 1)):
        write_bundle(bundles[name if version == 1 else "irony-2"], tmp_path / "adapters" / name / str(version))
    (tmp_path / "adapters" / "irony" / "registry.json").write_text('{"aliases": {"live": 2}}')
    return tmp_path / "adapters"


@pytest.fixture
def flags(adapters: Path, tiny_base: Path) -> list[str]:
    return ["--adapters-dir", str(adapters), "--base-model", str(tiny_base)]


def verify(*arguments: str) -> tuple[int, dict[str, list[str]]]:
    """The exit code, and the faults of each version."""
    result = quickchange("adapters", "verify", *arguments, "--json")
    return result.exit_code, {found["version"]: found["faults"] for found in json.loads(result.stdout)["versions"]}


def test_versions_that_fit_are_listed_in_order(flags: list[str]) -> None:
    result = quickchange("adapters", "verify", *flags)
    assert result.exit_code == 0, result.output
    shown = words(result)
    assert "4 checked, none faulty" in shown
    assert [word for word in shown.split() if ":" in word] == ["irony:1", "irony:2", "irony:10", "vqa:1"]


def test_what_an_upload_would_refuse_is_found(adapters: Path, flags: list[str], tiny_roberta: Path, tiny_base: Path) -> None:
    config = adapters / "irony" / "1" / CONFIG
    content = {**json.loads(config.read_text()), "r": 3}
    config.write_text(json.dumps(content))
    (adapters / "irony" / "1" / MANIFEST).write_text(
        json.dumps({"task": "text-classification", "labels": ["a", "b"], "max_length": 64})
    )
    write_bundle(text_bundle(tiny_base, ["a", "b"], scale=1e30), adapters / "loud" / "1")
    code, found = verify(*flags)
    assert code == 1 and not found["irony:2"] and not found["vqa:1"]
    assert len(found["irony:1"]) >= 2 and all("lora" in fault for fault in found["irony:1"])
    assert found["loud:1"] == ["its logits for a plain English sentence are not finite"]
    code, found = verify("irony:2", "--adapters-dir", str(adapters), "--base-model", str(tiny_roberta))
    assert code == 1 and len(found) == 1 and any("trained on tiny" in fault for fault in found["irony:2"])


def test_files_are_checked_without_the_models(adapters: Path) -> None:
    weights = adapters / "irony" / "1" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    (adapters / "irony" / "2" / CONFIG).unlink()
    damaged = adapters / "irony" / "11" / IMAGES[0]
    shutil.copytree(adapters / "irony" / "10", damaged.parent)
    damaged.write_bytes(damaged.read_bytes() + b"!")
    (adapters / "irony" / "10" / MANIFEST).unlink()
    (adapters / "vqa" / "1" / MANIFEST).write_text("{")
    quick = ("--files-only", "--adapters-dir", str(adapters), "--base-model", "no-such/model")
    code, found = verify(*quick)
    assert code == 1 and found == {
        "irony:1": [f"{WEIGHTS} is not the file that {MANIFEST} describes"],
        "irony:2": [f"no {CONFIG} in the bundle"],
        "irony:10": [f"no {MANIFEST}: the rest of an interrupted upload, which is not served"],
        "irony:11": [f"{IMAGES[0]} is not the file that {MANIFEST} describes"],
        "vqa:1": [f"{MANIFEST}: is not JSON, first at line 1, column 2"],
    }
    shown = quickchange("adapters", "verify", *quick)
    assert "5 checked, 5 faulty" in shown.stdout and f"✗ no {CONFIG} in the bundle" in words(shown)


def test_what_to_check_is_an_adapter_a_version_or_any_folder(
    adapters: Path, flags: list[str], bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    write_bundle(bundles["emotion"], tmp_path / "runs")
    (tmp_path / "runs" / MANIFEST).unlink()  # a plain PEFT adapter
    for named, found in (
        (["irony"], ["irony:1", "irony:2", "irony:10"]),
        (["irony:2", "vqa"], ["irony:2", "vqa:1"]),
        ([str(adapters / "irony" / "2")], ["irony:2"]),
        ([str(adapters)], ["irony:1", "irony:2", "irony:10", "vqa:1"]),
        ([str(tmp_path / "runs")], [str(tmp_path / "runs")]),
    ):
        assert verify(*named, *flags, "--files-only") == (0, {name: [] for name in found})
    for wrong in ("nope", "irony:7", "./none", str(tmp_path / "nowhere")):
        fails(quickchange("adapters", "verify", wrong, *flags), f"{wrong}: no adapter version there; expected")
    fails(quickchange("adapters", "verify", "--adapters-dir", str(tmp_path / "nowhere")), "nowhere: no such folder")
    fails(
        quickchange("adapters", "verify", "--adapters-dir", str(adapters), "--base-model", "./none"),
        "QUICKCHANGE_BASE_MODEL=./none: ",
    )
