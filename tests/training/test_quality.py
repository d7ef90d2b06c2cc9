"""The command that says what a lower precision costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from service.models.linear import DTYPES, computes_in
from service.store.alias import Target
from service.store.bundle import Bundle
from service.store.registry import Registry
from service.tasks.standalone import CPU
from training import quality
from training.quality import compare

TEXTS = ["a fine day", "what a day", "rain again", "such luck", "so it goes", "lovely weather", "well done", "never mind"]


def run(*arguments: str) -> tuple[int, str]:
    app = Typer()
    app.command()(quality.main)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize(
    ("fp32", "other", "kept"),
    [
        ("a" * 1000, "a" * 1000, True),
        ("a" * 1000, "a" * 997 + "b" * 3, True),
        ("a" * 1000, "a" * 996 + "b" * 4, False),
        ("b" * 11 + "a" * 989, "a" * 1000, False),
    ],
    ids=["equal", "a little worse", "too many wrong", "too many different, though right"],
)
def test_the_bounds(fp32: str, other: str, kept: bool) -> None:
    found = compare("x", ["a"] * 1000, list(fp32), list(other))
    assert found.kept is kept
    assert found.equal == round(sum(a == b for a, b in zip(fp32, other, strict=True)) / 10, 2)


def test_it_labels_the_validation_split_in_both_precisions(tiny_base: Path, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    registry = Registry.open(tmp_path / "adapters")
    registry.set_alias("irony", "live", Target.at(registry.publish("irony", bundles["irony"])[0].version))
    data = tmp_path / "tweeteval" / "irony"
    data.mkdir(parents=True)
    (data / "mapping.txt").write_text("0\tliteral\n1\tironic\n", "utf-8")
    for split in ("train", "val"):
        (data / f"{split}_text.txt").write_text("".join(f"{text}\n" for text in TEXTS), "utf-8")
        (data / f"{split}_labels.txt").write_text("0\n1\n" * 4, "utf-8")
    dtype = next(known for known in reversed(DTYPES) if computes_in(known, CPU))
    folders = (str(tmp_path), "--adapters", str(tmp_path / "adapters"), "--base-model", str(tiny_base))
    code, output = run(*folders, "--dtype", dtype, "--only", "irony", "--output", str(tmp_path / "found.json"))
    [row] = json.loads((tmp_path / "found.json").read_text("utf-8"))["adapters"]
    assert (row["adapter"], row["rows"]) == ("irony", 8) and 0 <= row["fp32"] <= 100
    assert code == (0 if row["fp32"] - row["other"] <= 0.3 and row["equal"] >= 99 else 1), output


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--dtype", "int3"], "--dtype int3: not a precision that this machine has instructions for; accepted: fp32"),
        (["--only", "spam"], "--only spam: not a shipped text adapter; accepted: sentiment, irony"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, arguments: list[str], line: str) -> None:
    code, output = run(str(tmp_path), *arguments)
    assert code == 2 and line in output
