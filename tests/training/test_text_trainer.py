"""The trainer's own promises: the learning rate's course, and what averaging weights means."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from tests.training.words import problem, recipe
from training.text_trainer import HELD, TextTrainer, rate


def test_the_rate_warms_up_and_falls_to_nothing_or_to_where_it_is_held() -> None:
    plain, held = ([rate(step, 10, until, 100) for step in range(101)] for until in (100, 60))
    for found in (plain, held):
        assert found[0] == 0 and found[5] == 0.5 and found[10] == 1
        assert all(before >= after for before, after in pairwise(found[10:]))
    assert plain[100] == pytest.approx(0) and plain[55] == pytest.approx(0.5)
    assert held[60:] == [pytest.approx(HELD)] * 41 and held[59] > HELD


def test_the_mean_of_the_last_steps_weights_is_what_is_measured_and_a_state_keeps_both(tiny_base: Path) -> None:
    data = problem(40, held_out=10)
    trainer = TextTrainer(Accelerator(), data, recipe(tiny_base, epochs=2, average=0.5))
    seen, number = [], 0
    for epoch in (1, 2):
        for rows in trainer.batches(epoch):
            number += 1
            trainer.step(number, rows)
            seen.append(trainer.tensors())
            with trainer.averaged():  # before the half there is no mean yet
                assert number > trainer.steps // 2 or _equal(trainer.tensors(), seen[-1], 0)
    last = seen[trainer.steps // 2 :]
    mean = {name: torch.stack([tensors[name] for tensors in last]).mean(0) for name in seen[-1]}
    before = trainer.logits("validation")
    with trainer.averaged():
        assert _equal(trainer.tensors(), mean, 1e-6)
        assert not torch.equal(trainer.logits("validation"), before)
        inside = trainer.state()
    outside = trainer.state()
    assert inside[1] == outside[1] and inside[0].keys() == outside[0].keys()
    assert all(torch.equal(tensor, outside[0][name]) for name, tensor in inside[0].items())
    assert torch.equal(trainer.logits("validation"), before)


def _equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> bool:
    return all(torch.allclose(tensor, expected[name], atol=tolerance, rtol=0) for name, tensor in found.items())
