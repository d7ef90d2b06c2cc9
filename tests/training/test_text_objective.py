"""Losses against torch's own, whole and in shares."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from tests.training.words import problem
from training.data_types import MULTI, PROBLEM_TYPES, REGRESSION, SINGLE
from training.text_model import Recipe
from training.text_objective import Objective

WHOLE = [3, 8, 1, 0, 9, 4, 7]
CPU = torch.device("cpu")


def objective(problem_type: str, class_weights: str = "none", smoothing: float = 0.0, r_drop: float = 0.0) -> Objective:
    chosen = Recipe(class_weights=class_weights, label_smoothing=smoothing, r_drop=r_drop)
    return Objective(problem(problem_type=problem_type), chosen, CPU)


def logits(problem_type: str, seed: int = 0) -> torch.Tensor:
    return torch.randn(len(WHOLE), 1 if problem_type == REGRESSION else 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_the_shares_of_processes_add_up_to_the_whole(problem_type: str, class_weights: str) -> None:
    if problem_type == REGRESSION:
        class_weights = "none"
    chosen, given = objective(problem_type, class_weights, 0.1), logits(problem_type)
    shares = sum(chosen.loss(given[rank::3], WHOLE[rank::3], WHOLE) for rank in range(3))
    assert shares == pytest.approx(chosen.loss(given, WHOLE, WHOLE).item(), rel=1e-5)
    both, other = objective(problem_type, class_weights, r_drop=0.7), logits(problem_type, seed=1)
    shares = sum(both.loss_of_both(given[rank::3], other[rank::3], WHOLE[rank::3], WHOLE) for rank in range(3))
    assert shares == pytest.approx(both.loss_of_both(given, other, WHOLE, WHOLE).item(), rel=1e-5)


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_two_draws_of_dropout_that_agree_cost_nothing_and_others_their_divergence(problem_type: str) -> None:
    chosen, one, other = objective(problem_type, r_drop=2.0), logits(problem_type), logits(problem_type, seed=1)
    losses = [chosen.loss(given, WHOLE, WHOLE) for given in (one, other)]
    assert torch.allclose(chosen.loss_of_both(one, one, WHOLE, WHOLE), losses[0])
    if problem_type == REGRESSION:
        apart = (one - other).square().sum() / 2
    else:
        choices = Bernoulli if problem_type == MULTI else Categorical
        p, q = (choices(logits=given) for given in (one, other))
        apart = (kl_divergence(p, q) + kl_divergence(q, p)).sum() / 2
        if problem_type == MULTI:
            apart = apart / one.shape[1]
    expected = sum(losses) / 2 + 2.0 * apart / len(WHOLE)
    assert chosen.loss_of_both(one, other, WHOLE, WHOLE).item() == pytest.approx(expected.item(), rel=1e-5)


def test_it_is_the_mean_that_torch_computes() -> None:
    targets = {kind: [problem(problem_type=kind).splits["train"].labels[i] for i in WHOLE] for kind in PROBLEM_TYPES}
    single = cross_entropy(logits(SINGLE), torch.tensor(targets[SINGLE]), label_smoothing=0.1)
    assert objective(SINGLE, smoothing=0.1).loss(logits(SINGLE), WHOLE, WHOLE).item() == pytest.approx(single.item())
    hot = torch.tensor([[float(label in row) for label in range(2)] for row in targets[MULTI]])
    multi = binary_cross_entropy_with_logits(logits(MULTI), hot)
    assert objective(MULTI).loss(logits(MULTI), WHOLE, WHOLE).item() == pytest.approx(multi.item())
    values = objective(REGRESSION)
    given = values.in_units(logits(REGRESSION))[:, 0]
    in_units = mse_loss(given, torch.tensor(targets[REGRESSION]))
    found = values.loss(logits(REGRESSION), WHOLE, WHOLE) * values.scale[0] ** 2
    assert found.item() == pytest.approx(in_units.item(), rel=1e-4)


def test_a_folded_head_gives_the_values_that_in_units_gives() -> None:
    chosen, x = objective(REGRESSION), torch.randn(5, 4)
    tensors = {"base_model.model.classifier.weight": torch.randn(1, 4), "base_model.model.classifier.bias": torch.randn(1)}
    folded = chosen.folded({**tensors, "other.weight": torch.ones(1)})
    plain, scaled = (list(t.values()) for t in (tensors, folded))
    assert torch.allclose(x @ scaled[0].T + scaled[1], chosen.in_units(x @ plain[0].T + plain[1]), rtol=1e-4)
    assert folded["other.weight"].item() == 1
