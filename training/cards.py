"""Model cards: what an adapter is, how it was made and measured, and what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from service.store.bundle import Manifest
from training.bundles import curve_table, markdown_table, metrics_table, recipe_table
from training.data import TextData
from training.findings import CONFUSION, CURVES, RELIABILITY, hardest_table, images, label_table, slice_table
from training.report import Table, interval
from training.scored import Scored
from training.slices import slices

TEXT_LIMITS = """\
- Not for decisions about people: no moderation, hiring, credit, policing or health decision without a human who reads
  the text. It sees a few words of one message, without its thread, its irony or its author's situation.
- Not for other languages, long documents, or text unlike its training data without measuring it there first.
- Its errors are not spread evenly: dialects, reclaimed words and names of groups are misread more often than the average
  figure shows. Do not report its output as a fact about a person or a group."""

VQA_LIMITS = """\
- Not for safety, accessibility or navigation: it answers most questions wrongly, and always answers with confidence.
- Not for photographs unlike its training data (indoor rooms, low resolution), nor for questions outside its answer list,
  which it answers with something from the list all the same.
- Not for questions about people: who someone is, how they feel, what they do."""

TEMPLATE = """\
---
library_name: peft
base_model: [{base}]
tags: [{task}, quickchange]
---
# {name}

{summary}

**Labels** ({count}): {labels}

## Data
{data}

## Metrics
{metrics}

{note}
{quality}
## Recipe
{recipe}

{curve}

## What it must not be used for
{limits}
"""


CALIBRATED = """Logits are divided by {temperature:.3f}, the temperature that suits validation best; the head's last layer has \
it folded in. Expected calibration error on validation: {ece_before:.4f} before, {ece_after:.4f} after."""
HARDEST = "The validation rows answered wrongly with the highest loss, by their place in the split, counted from 0."
CAPTIONS = {CONFUSION: "True against given labels", RELIABILITY: "Reliability", CURVES: "Learning curves"}


@dataclass(frozen=True)
class Quality:
    """What a card shows beyond its manifest: validation, and perhaps test, as the adapter answers them, and the curve.

    Tables and plots are of test where there is one; the hardest rows are always those of validation.
    """

    splits: Mapping[str, Scored]
    curve: Sequence[Mapping[str, float]] = ()

    @property
    def shown(self) -> str:
        """The split of the tables and plots."""
        return "test" if "test" in self.splits else "validation"

    @cached_property
    def images(self) -> dict[str, bytes]:
        """The PNG files beside the card."""
        return images(self.splits[self.shown], self.curve)


def text_quality(
    data: TextData,
    logits: Mapping[str, Tensor],
    thresholds: tuple[float, ...] | None = None,
    curve: Sequence[Mapping[str, float]] = (),
) -> Quality:
    """The quality of a text adapter from its logits, as served, of splits of its data."""
    splits = {}
    for name, given in logits.items():
        part = data.splits[name]
        splits[name] = Scored(data.problem_type, data.labels, part.labels, given, thresholds, slices(part.texts))
    return Quality(splits, curve)


def card(manifest: Manifest, *, summary: str, data: str, note: str, limits: str, quality: Quality | None = None) -> str:
    """The README.md of a bundle, in Markdown with the front matter that model hubs read.

    With ``quality`` it refers to that one's images, which lie beside it.
    """
    shown = manifest.labels[:20]
    more = f" and {len(manifest.labels) - len(shown)} more" if len(manifest.labels) > len(shown) else ""
    return TEMPLATE.format(
        base=", ".join(ref.name for ref in manifest.base.values()),
        task=manifest.task,
        name=manifest.name or "adapter",
        summary=summary,
        count=len(manifest.labels),
        labels=", ".join(f"`{label}`" for label in shown) + more,
        data=data,
        metrics=metrics_table(manifest.metrics),
        note=note,
        quality="" if quality is None else f"\n{_sections(manifest, quality)}\n",
        recipe=recipe_table(manifest.recipe),
        curve=curve_table(manifest.recipe),
        limits=limits,
    )


def _sections(manifest: Manifest, quality: Quality) -> str:
    """The sections about quality, each with what there is of it."""
    scored = quality.splits[quality.shown]
    calibration = manifest.recipe.get("calibration")
    sections = {
        "How sure these figures are": [_intervals(quality)],
        "Calibration": [CALIBRATED.format(**calibration)] if calibration else [],
        f"By label, on {quality.shown}": [_markdown(label_table(scored))],
        f"By slice, on {quality.shown}": [_markdown(slice_table(scored))] if scored.slices else [],
        "Where it errs most": [HARDEST, _markdown(hardest_table(quality.splits["validation"]))],
    }
    plots = {"Calibration": RELIABILITY, f"By label, on {quality.shown}": CONFUSION, "Where it errs most": CURVES}
    for title, name in plots.items():
        if name in quality.images:
            sections[title].append(f"![{CAPTIONS[name]}]({name})")
    return "\n\n".join(f"## {title}\n" + "\n\n".join(parts) for title, parts in sections.items() if parts)


def _intervals(quality: Quality) -> str:
    """The 95 % bootstrap interval of each figure by split."""
    columns = {split: scored.intervals for split, scored in quality.splits.items()}
    names = list(next(iter(columns.values())))
    rows = [[name, *(interval(*found[name], 4) for found in columns.values())] for name in names]
    return markdown_table(["95 % interval", *columns], rows)


def _markdown(table: Table) -> str:
    return markdown_table(table.columns, table.rows)
