"""A base model's weights are those that transformers reads, whatever its file is like; what cannot be read is one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, DistilBertConfig

from service.errors import StartupError
from service.models.base_weights import FILE, load_base
from service.models.sources import fingerprint

Tensors = dict[str, Tensor]


def changed(base: Path, folder: Path, change: Callable[[Tensors], Tensors]) -> str:
    shutil.copytree(base, folder)
    save_file(change(load_file(folder / FILE)), folder / FILE, {"format": "pt"})
    return str(folder)


@pytest.mark.parametrize("kind", ["tiny_base", "tiny_roberta"])
def test_they_are_those_of_transformers_model(kind: str, request: pytest.FixtureRequest) -> None:
    folder = str(request.getfixturevalue(kind))
    expected, found = AutoModel.from_pretrained(folder).state_dict(), load_base(folder).tensors
    assert set(expected) - set(found) <= ({"pooler.dense.weight", "pooler.dense.bias"} if kind == "tiny_roberta" else set())
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {name: tensor.half() for name, tensor in tensors.items()},
        lambda tensors: {f"bert.{name}": tensor for name, tensor in tensors.items()} | {"classifier.weight": torch.zeros(2, 32)},
        lambda tensors: {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in tensors.items()
        },
    ],
    ids=["in half precision", "of a classifier", "by names of old"],
)
def test_a_file_may_have_them_in_other_ways(change: Callable[[Tensors], Tensors], tiny_base: Path, tmp_path: Path) -> None:
    found, expected = load_base(changed(tiny_base, tmp_path / "base", change)).tensors, load_base(str(tiny_base)).tensors
    assert set(found) == set(expected)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-3, rtol=1e-3)


def test_without_a_pooler_there_is_none(tiny_base: Path, tmp_path: Path) -> None:
    without = lambda tensors: {name: tensor for name, tensor in tensors.items() if "pooler" not in name}  # noqa: E731  # one use
    found = load_base(changed(tiny_base, tmp_path / "base", without)).tensors
    assert set(load_base(str(tiny_base)).tensors) - set(found) == {"pooler.dense.weight", "pooler.dense.bias"}


def test_what_is_changed_on_disk_later_changes_nothing(tiny_base: Path, tmp_path: Path) -> None:
    folder = changed(tiny_base, tmp_path / "base", lambda tensors: tensors)
    loaded = load_base(folder)
    file = Path(folder) / FILE
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2)
        stream.write(bytes(file.stat().st_size // 2))
    assert fingerprint(loaded.tensors) == loaded.fingerprint


def test_lacking_tensors_are_told(tiny_base: Path, tmp_path: Path) -> None:
    lacking = "encoder.layer.0.output.dense.bias"
    folder = changed(tiny_base, tmp_path / "base", lambda tensors: {n: t for n, t in tensors.items() if n != lacking})
    with pytest.raises(StartupError, match=rf"base: the model's file lacks 1 tensors, the first '{lacking}'"):
        load_base(folder)


def test_quantised_weights_are_not_read_as_they_lie(tiny_base: Path, tmp_path: Path) -> None:
    name = "encoder.layer.0.output.dense.weight"
    folder = changed(tiny_base, tmp_path / "base", lambda tensors: {**tensors, name: torch.ones_like(tensors[name]).char()})
    config = json.loads((Path(folder) / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (Path(folder) / "config.json").write_text(json.dumps(config))
    with pytest.raises(StartupError, match="not a model that can be read"):  # the library that could is not installed
        load_base(folder)


def test_a_broken_file_is_one_line(tiny_base: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_base, tmp_path / "base")
    (tmp_path / "base" / FILE).write_bytes(b"no tensors")
    with pytest.raises(StartupError, match="not a model that can be read"):
        load_base(str(tmp_path / "base"))


def test_the_fingerprint_names_the_weights_and_not_the_file(tiny_base: Path) -> None:
    tensors = load_base(str(tiny_base)).tensors
    assert load_base(str(tiny_base)).fingerprint == fingerprint({name: tensor.double() for name, tensor in tensors.items()})
    first = next(iter(tensors))
    assert fingerprint({**tensors, first: tensors[first] + 1e-3}) != fingerprint(tensors)


@pytest.mark.parametrize(("name", "says"), [("./nowhere", "no model there"), ("nobody/nothing-at-all", "no hub answers")])
def test_a_missing_model_is_one_clear_line(name: str, says: str) -> None:
    with pytest.raises(StartupError, match=says) as refused:
        load_base(name)
    assert "QUICKCHANGE_BASE_MODEL" in str(refused.value) and "\n" not in str(refused.value)


def test_an_architecture_without_a_row_in_the_table_is_refused(tmp_path: Path) -> None:
    DistilBertConfig().save_pretrained(tmp_path)
    with pytest.raises(StartupError, match="model type 'distilbert' is not supported; accepted: bert, roberta"):
        load_base(str(tmp_path))
