"""Temperatures and thresholds, and that folding a temperature in changes probabilities and no label."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError

from training.calibration import expected_calibration_error, fit_temperature, fit_thresholds, fold
from training.data_types import MULTI
from training.metrics import figures

TEMPERATURES = st.floats(0.05, 20)
LAST = ["base_model.model.classifier", "base_model.model.classifier.out_proj", "output"]
LOGITS = st.lists(st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3), min_size=1, max_size=8)


def made(rows: int, scale: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits from which labels are drawn, made ``scale`` times too bold."""
    maker = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, 3, generator=maker) * 1.5
    labels = torch.multinomial(logits.softmax(-1), 1, generator=maker)[:, 0]
    return logits * scale, labels


@given(
    LOGITS, TEMPERATURES, st.integers(0, 1000), st.sampled_from(["base_model.model.classifier", "classifier.out_proj", "output"])
)
def test_folding_divides_the_logits_and_keeps_the_labels(
    features: list[list[float]], temperature: float, seed: int, last: str
) -> None:
    maker = torch.Generator().manual_seed(seed)
    head = {f"{last}.weight": torch.randn(4, 3, generator=maker), f"{last}.bias": torch.randn(4, generator=maker)}
    tensors = {**head, "base_model.model.bert.encoder.layer.0.output.dense.lora_A.weight": torch.ones(2, 3)}
    folded = fold(tensors, temperature)
    x = torch.tensor(features)
    before, after = ((x @ t[f"{last}.weight"].T + t[f"{last}.bias"]).double() for t in (tensors, folded))
    assert torch.allclose(after.softmax(-1), (before / temperature).softmax(-1), atol=1e-4)
    top = before.topk(2, -1)
    clear = top.values[:, 0] - top.values[:, 1] > 1e-3  # a tie may fall either way once it is rounded
    assert torch.equal(after.argmax(-1)[clear], top.indices[:, 0][clear])
    other = set(tensors) - set(head)
    assert all(torch.equal(folded[name], tensors[name]) for name in other)


def test_half_precision_stays_half_precision() -> None:
    folded = fold({"x.classifier.weight": torch.ones(2, 2, dtype=torch.float16), "x.classifier.bias": torch.ones(2)}, 3.0)
    assert folded["x.classifier.weight"].dtype == torch.float16
    assert folded["x.classifier.bias"].tolist() == pytest.approx([1 / 3, 1 / 3])


def test_tensors_without_a_head_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no tensor ends in classifier\.weight"):
        fold({"encoder.layer.0.output.dense.weight": torch.ones(2, 2)}, 2.0)


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(scale: float) -> None:
    logits, labels = made(20_000, scale)
    found = fit_temperature(logits, labels.tolist())
    assert found.temperature == pytest.approx(scale, rel=0.05)
    assert found.ece_after < 0.02 and found.ece_before == expected_calibration_error(logits, labels)
    assert scale == 1.0 or found.ece_before > 3 * found.ece_after


def test_where_every_row_is_right_probabilities_stay_as_they_are() -> None:
    assert fit_temperature(torch.eye(3) * 9, [0, 1, 2]).temperature == 1.0
    assert fit_temperature(torch.eye(3) * 9, [0, 1, 1]).temperature > 1.0


@given(st.integers(0, 1000), st.sampled_from([5, 15, 30]))
def test_the_calibration_error_is_torchmetrics_and_the_definitions(seed: int, bins: int) -> None:
    logits, labels = made(200, 2.0, seed)
    found = expected_calibration_error(logits, labels.tolist(), bins)
    metric = MulticlassCalibrationError(3, n_bins=bins)
    assert found == pytest.approx(float(metric(logits.softmax(-1), labels)), abs=1e-3)
    probability, given_label = logits.double().softmax(-1).max(-1)
    place = (probability * bins).ceil().long()
    gaps = [((given_label == labels).double()[place == b] - probability[place == b]).sum().abs() for b in range(1, bins + 1)]
    assert found == pytest.approx(float(torch.stack(gaps).sum() / len(labels)), abs=1e-3)


def test_logits_between_0_and_1_are_not_taken_for_probabilities() -> None:
    assert expected_calibration_error(torch.tensor([[1.0, 0.0]] * 4), [0, 0, 0, 1]) == pytest.approx(0.0189, abs=1e-4)


def test_thresholds_make_f1_the_highest_and_lie_between_0_and_1() -> None:
    maker = torch.Generator().manual_seed(0)
    has = torch.rand(400, 3, generator=maker) < torch.tensor([0.1, 0.5, 0.0])
    logits = torch.randn(400, 3, generator=maker) + 2 * has - torch.tensor([3.0, -1.0, 0.0])
    true = [tuple(row.nonzero()[:, 0].tolist()) for row in has]
    thresholds = fit_thresholds(logits, true)
    assert all(0 < threshold < 1 for threshold in thresholds) and thresholds[2] == 0.5
    best = figures(MULTI, true, logits, 3, thresholds)["macro_f1"]
    assert best > figures(MULTI, true, logits, 3)["macro_f1"] + 0.05
    for label in range(2):
        for other in torch.linspace(0.02, 0.98, 49).tolist():
            changed = (*thresholds[:label], other, *thresholds[label + 1 :])
            assert figures(MULTI, true, logits, 3, changed)["macro_f1"] <= best + 1e-4
