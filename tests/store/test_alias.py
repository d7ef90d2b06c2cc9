"""Where an alias points: shares, sticky keys, rules on metrics."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidInput, RequirementNotMet
from service.store.alias import Alias, Target, check_requirements, check_target
from service.store.bundle import TEXT_CLASSIFICATION, Manifest

SPLITS = st.dictionaries(st.integers(1, 50), st.integers(1, 1000), min_size=1, max_size=8).map(
    lambda found: dict(sorted(found.items()))
)
KEYS = [f"user-{number}" for number in range(2000)]


@given(SPLITS, st.none() | st.integers(60, 70), st.dictionaries(st.sampled_from(["f1", "test.f1"]), st.just(">= 0.5")))
def test_a_target_is_what_was_stored(split: dict[int, int], shadow: int | None, require: dict[str, str]) -> None:
    target = Target(split, shadow, require)
    assert Target.load(target.dump()) == target
    assert target.versions == set(split) | ({shadow} if shadow else set())
    assert split[target.version] == max(split.values())


@given(SPLITS, st.text(max_size=40))
def test_a_key_always_gets_the_same_version_of_the_split(split: dict[int, int], key: str) -> None:
    target = Target(split)
    assert target.pick("a@live", key) in split
    assert target.pick("a@live", key) == Target(dict(split)).pick("a@live", key)


@pytest.mark.parametrize("split", [{1: 90, 2: 10}, {1: 1, 2: 1, 3: 1}, {4: 500, 9: 1500}])
def test_keys_fall_by_their_shares_and_another_alias_draws_anew(split: dict[int, int]) -> None:
    target, total = Target(split), sum(split.values())
    drawn = [target.pick("a@live", key) for key in KEYS]
    for version, share in split.items():
        assert abs(Counter(drawn)[version] / len(KEYS) - share / total) < 0.05
    assert drawn != [target.pick("b@live", key) for key in KEYS]
    assert {target.pick("a@live", None) for _ in range(500)} == set(split)


@given(st.integers(1, 99), st.integers(1, 99))
def test_whoever_has_the_canary_keeps_it_while_it_grows(small: int, large: int) -> None:
    small, large = sorted((small, large))
    before, after = Target({1: 100 - small, 2: small}), Target({1: 100 - large, 2: large})
    assert all(after.pick("a@live", key) == 2 for key in KEYS[:200] if before.pick("a@live", key) == 2)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Target({}), "with no version"),
        (Target({1: 0}), "1: 0"),
        (Target(dict.fromkeys(range(1, 18), 1)), "1 to 16 versions"),
        (Target({1: 1}, shadow=1), "shadow 1"),
        (Target({1: 1}, require={"f1": ">= "}), "is not a rule"),
        (Target({1: 1}, require={"f1": ">= No"}), "is not a rule"),
        (Target({1: 1}, require={"f1": "> 0.5"}), "'>= ALIAS' or '>= NUMBER'"),
    ],
)
def test_what_makes_no_sense_is_said(target: Target, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_target(target)
    assert said in str(refused.value)


def manifest(**metrics: dict[str, float]) -> Manifest:
    return Manifest(task=TEXT_CLASSIFICATION, labels=("no", "yes"), metrics=metrics)


MANIFESTS = {
    1: manifest(test={"f1": 0.9}, validation={"f1": 0.7}),
    2: manifest(validation={"f1": 0.6}),
    3: manifest(test={"f1": 0.8}),
    4: None,
}
LIVE = {"live": Alias(1, Target.at(1))}


@pytest.mark.parametrize(
    ("split", "rule", "missed"),
    [
        ({1: 1}, {"f1": ">= 0.7"}, ""),
        ({2: 1}, {"f1": ">= 0.7"}, "version 2: f1 is 0.6, and >= 0.7 requires 0.7"),
        ({2: 1}, {"f1": ">= live"}, "version 2: f1 is 0.6, and >= live requires 0.7"),
        ({3: 1}, {"f1": ">= live"}, ""),  # the only split that it has
        ({3: 1}, {"test.f1": ">= live"}, "version 3: test.f1 is 0.8, and >= live requires 0.9"),
        ({2: 1}, {"test.f1": ">= 0.1"}, "version 2: test.f1 >= 0.1 cannot be told"),
        ({4: 1}, {"f1": ">= 0.1"}, "version 4: f1 >= 0.1 cannot be told"),
        ({1: 1, 2: 1}, {"f1": ">= 0.65", "loss": ">= 0"}, "version 2: f1 is 0.6"),
        ({2: 1}, {"f1": ">= nobody"}, ""),  # nothing to be better than
    ],
)
def test_a_rule_holds_for_every_version_of_a_split(split: dict[int, int], rule: dict[str, str], missed: str) -> None:
    target = Target(split, require=rule)
    if not missed:
        check_requirements(target, MANIFESTS, LIVE)
        return
    with pytest.raises(RequirementNotMet) as refused:
        check_requirements(target, MANIFESTS, LIVE)
    assert missed in str(refused.value)
