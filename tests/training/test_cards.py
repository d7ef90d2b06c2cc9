"""A model card with everything that was measured, and none of the texts."""

from __future__ import annotations

from pathlib import Path

import torch

from service.store.bundle import TEXT_CLASSIFICATION, Manifest, read_bundle
from tests.support.bundles import text_bundle
from training.bundles import markdown_table, write_bundle
from training.cards import TEXT_LIMITS, Quality, card, text_quality
from training.data_types import MULTI, SINGLE, Split, TextData

CURVE = [{"epoch": 1, "loss": 0.7, "accuracy": 0.5}, {"epoch": 2, "loss": 0.5, "accuracy": 0.75}]
TEXTS = [f"secret words of row {i} #tag" for i in range(12)]
RECIPE = {"calibration": {"temperature": 1.8312, "ece_before": 0.1234, "ece_after": 0.0321}, "curve": CURVE}


def made(problem_type: str = SINGLE) -> tuple[Quality, TextData]:
    labels = [i % 2 if problem_type == SINGLE else (i % 2,) for i in range(12)]
    split = Split(TEXTS, labels)
    data = TextData(("bad", "good | fine"), {"validation": split, "test": split}, problem_type)
    logits = torch.nn.functional.one_hot(torch.tensor([i % 2 for i in range(12)]), 2) * 2.0
    wrong = logits.clone()
    wrong[7] = torch.tensor([5.0, -5.0])
    return text_quality(data, {"validation": wrong, "test": logits}, curve=CURVE), data


def written(quality: Quality, labels: tuple[str, ...]) -> str:
    figures = {name: scored.figures for name, scored in quality.splits.items()}
    manifest = Manifest(name="words", task=TEXT_CLASSIFICATION, labels=labels, metrics=figures, recipe=RECIPE)
    return card(manifest, summary="A summary.", data="Data.", note="A note.", limits=TEXT_LIMITS, quality=quality)


def test_it_says_what_was_measured_and_where_it_errs_by_row_alone() -> None:
    quality, data = made()
    text = written(quality, data.labels)
    for part in (
        "| accuracy | 0.9167 | 1.0 |",
        "| accuracy | 0.7500 to 1.0000 | 1.0000 to 1.0000 |",
        "divided by 1.831, the temperature",
        "0.1234 before, 0.0321 after",
        "| good \\| fine | 1.0000 | 1.0000 | 1.0000 | 6 |",
        "| hashtag | 12 | 1.0000 |",
        "| 7 | good \\| fine | bad | 1 |",
        *(f"]({name})" for name in ("confusion.png", "reliability.png", "curves.png")),
    ):
        assert part in text, text
    assert set(quality.images) == {"confusion.png", "reliability.png", "curves.png"}
    assert "secret" not in text


def test_several_labels_have_no_confusion() -> None:
    quality, data = made(MULTI)
    assert set(quality.images) == {"curves.png"}
    text = written(quality, data.labels)
    assert "micro_f1" in text and "confusion.png" not in text and "| 7 | good \\| fine | bad | – |" in text


def test_the_images_lie_beside_the_card_and_go_with_the_bundle(tiny_base: Path, tmp_path: Path) -> None:
    quality, _ = made()
    write_bundle(text_bundle(tiny_base, ["bad", "good"], images=quality.images), tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in quality.images} == quality.images
    assert set(quality.images) < set(read_bundle(tmp_path).manifest.files)
    write_bundle(text_bundle(tiny_base, ["bad", "good"]), tmp_path)
    assert not list(tmp_path.glob("*.png")) and not list(tmp_path.glob(".*"))


def test_a_cell_cannot_end_its_row() -> None:
    assert markdown_table(["a", "b"], [["x|y", "1\n2"], [None, {"k": 1}]]) == (
        "| a | b |\n|---|---:|\n| x\\|y | 1 2 |\n| – | k 1 |"
    )
