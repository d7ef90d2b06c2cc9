"""Model cards: what an adapter is, how it was made and measured, and what it must not be used for."""

from __future__ import annotations

from service.store.bundle import Manifest
from training.bundles import curve_table, metrics_table, recipe_table

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

## Recipe
{recipe}

{curve}

## What it must not be used for
{limits}
"""


def card(manifest: Manifest, *, summary: str, data: str, note: str, limits: str) -> str:
    """The README.md of a bundle, in Markdown with the front matter that model hubs read."""
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
        recipe=recipe_table(manifest.recipe),
        curve=curve_table(manifest.recipe),
        limits=limits,
    )
