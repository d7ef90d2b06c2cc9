"""Changes of weights cut to low ranks: exact where the rank is enough, best where it is not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from service.models.lora import Factors
from training.low_rank import Change, cut, energy_kept, for_energy, peft_config, uniform

SHAPES = {"a": (12, 7), "b": (5, 20), "c": (16, 16)}


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(seed: int) -> dict[str, Change]:
    return {name: Change.of((i + 1) * noise(seed + i, *shape)) for i, (name, shape) in enumerate(SHAPES.items())}


def delta(pair: Factors) -> Tensor:
    return pair.scaling * pair.b.T @ pair.a


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 20), columns=st.integers(1, 20))
def test_each_rank_keeps_more_and_loses_exactly_the_energy_it_leaves(seed: int, rows: int, columns: int) -> None:
    weights = noise(seed, rows, columns)
    change = Change.of(weights)
    kept = [energy_kept({"m": change}, {"m": rank}) for rank in range(change.rank + 1)]
    assert kept[0] == 0 and kept[-1] == pytest.approx(1) and kept == sorted(kept)
    for rank in range(1, change.rank + 1):
        lost = float((weights - delta(change.factors(rank))).double().square().sum() / weights.double().square().sum())
        assert lost == pytest.approx(1 - kept[rank], abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), energy=st.floats(0.01, 1))
def test_ranks_for_an_energy_keep_it_with_none_to_spare(seed: int, energy: float) -> None:
    changes = made(seed)
    ranks = for_energy(changes, energy)
    assert energy_kept(changes, ranks) >= energy - 1e-9
    for module, rank in ranks.items():
        if rank:
            assert energy_kept(changes, {**ranks, module: rank - 1}) < energy
    total = sum(ranks.values())
    for rank in range(1, 17):
        if sum(uniform(changes, rank).values()) <= total - 1:
            assert energy_kept(changes, uniform(changes, rank)) < energy + 1e-9


@pytest.mark.parametrize(("rank", "shape"), [(1, (8, 5)), (3, (8, 5)), (4, (5, 30)), (12, (6, 7))])
def test_a_product_has_its_real_rank_and_is_itself(rank: int, shape: tuple[int, int]) -> None:
    b, a = noise(1, shape[0], rank), noise(2, rank, shape[1])
    change = Change.product(torch.cat([b, b], 1), torch.cat([a, 2 * a]))
    assert change.rank == min(rank, *shape)
    torch.testing.assert_close(delta(change.factors(change.rank)), 3 * b @ a, atol=1e-4, rtol=0)
    torch.testing.assert_close(change.s, Change.of(3 * b @ a).s[: change.rank], atol=1e-4, rtol=1e-4)


def test_both_factors_have_the_same_size() -> None:
    pair = Change.of(noise(3, 12, 7)).factors(4)
    torch.testing.assert_close(pair.a.square().sum(1), pair.b.square().sum(1))


def test_no_change_at_all_is_one_module_of_zeros() -> None:
    changes = {"a": Change.of(torch.zeros(4, 3)), "b": Change.of(torch.zeros(2, 5))}
    assert uniform(changes, 8) == for_energy(changes, 0.9) == {"a": 0, "b": 0}
    assert energy_kept(changes, uniform(changes, 8)) == 1
    factors = cut(changes, uniform(changes, 8))
    assert list(factors) == ["a"] and factors["a"].a.shape == (1, 3) and factors["a"].b.shape == (1, 4)
    assert not delta(factors["a"]).any()


def test_the_configuration_has_patterns_only_where_ranks_differ() -> None:
    changes = made(0)
    config = peft_config("base", cut(changes, {"a": 2, "b": 3, "c": 3}), saves_pooler=True)
    assert (config["r"], config["lora_alpha"], config["rank_pattern"], config["alpha_pattern"]) == (3, 3, {"a": 2}, {"a": 2})
    assert config["target_modules"] == ["a", "b", "c"] and config["modules_to_save"] == ["classifier", "pooler"]
    assert peft_config("base", cut(changes, {"a": 2, "b": 0, "c": 2}), saves_pooler=False)["target_modules"] == ["a", "c"]
