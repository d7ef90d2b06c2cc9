"""Bootstrap intervals hold the truth as often as they say, and a test finds what is there and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from training.statistics import accuracy, bootstrap_interval, paired_bootstrap


def test_an_interval_of_95_per_cent_holds_the_truth_about_95_times_in_100() -> None:
    draw = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        low, high = bootstrap_interval(draw.random(150) < 0.7, samples=300, seed=trial)
        held += low <= 0.7 <= high
    assert 180 <= held <= 199


def test_a_paired_interval_holds_the_true_difference_about_95_times_in_100() -> None:
    draw, held, found = np.random.default_rng(1), 0, 0
    for trial in range(150):
        true = draw.integers(0, 3, 200)
        a, b = (np.where(draw.random(200) < share, true, (true + 1) % 3) for share in (0.70, 0.80))
        paired = paired_bootstrap(true, a, b, accuracy, samples=300, seed=trial)
        held += paired.low <= 0.10 <= paired.high
        found += paired.is_significant
        assert paired.difference == pytest.approx((b == true).mean() - (a == true).mean())
    assert 135 <= held <= 150
    assert found >= 75  # a gain of 10 points on 200 rows shows in most samples


def test_between_equals_a_difference_is_found_about_5_times_in_100() -> None:
    draw, found, small = np.random.default_rng(2), 0, 0
    for trial in range(150):
        true = draw.integers(0, 3, 200)
        a, b = (np.where(draw.random(200) < 0.75, true, (true + 1) % 3) for _ in range(2))
        paired = paired_bootstrap(true, a, b, accuracy, samples=300, seed=trial)
        found += paired.is_significant
        small += paired.p_value < 0.05
    assert found <= 16 and small <= 16


def test_the_same_answers_do_not_differ() -> None:
    paired = paired_bootstrap([0, 1, 1], [0, 1, 0], [0, 1, 0], accuracy, samples=100)
    assert (paired.difference, paired.low, paired.high, paired.p_value) == (0, 0, 0, 1)


def test_the_seed_decides_the_resamples() -> None:
    values = np.arange(50)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)
