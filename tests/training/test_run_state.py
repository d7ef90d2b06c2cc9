"""Checkpoints on disk, and failures of disk and memory."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from service.errors import QuickchangeError
from training.run_state import CHECKPOINT, Checkpoint, RunFailed, said_clearly


def test_a_checkpoint_reads_as_it_was_written(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "new", {"seed": 1})
    assert checkpoint.read() is None
    checkpoint.write({"a": torch.arange(3.0)[::2]}, {"step": 7, "loss": 0.1 + 0.2})
    found = checkpoint.read()
    assert found and found[0]["a"].tolist() == [0, 2] and found[1] == {"step": 7, "loss": 0.1 + 0.2}
    assert [path.name for path in (tmp_path / "new").iterdir()] == [CHECKPOINT]
    checkpoint.remove()
    assert checkpoint.read() is None


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{}              "])
def test_a_checkpoint_that_cannot_be_read_is_said_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(RunFailed, match="is no checkpoint that can be read; --fresh"):
        Checkpoint(tmp_path, {}).read()


def test_no_space_leaves_the_last_checkpoint_and_one_line(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, {})
    checkpoint.write({"a": torch.zeros(8)}, {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(QuickchangeError, match="no space left"), said_clearly("less"):
            checkpoint.write({"a": torch.zeros(100_000)}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    found = checkpoint.read()
    assert found and found[1] == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_no_memory_is_said_in_one_line() -> None:
    with pytest.raises(RunFailed, match="out of memory; try a --batch-size below 32"), said_clearly("a --batch-size below 32"):
        torch.empty(2**50)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), said_clearly("less"):
        (tmp_path / "none").read_bytes()
    with pytest.raises(RuntimeError, match="size"), said_clearly("less"):
        torch.zeros(2) @ torch.zeros(3)
