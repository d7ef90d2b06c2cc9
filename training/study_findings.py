"""What a study's figures say, in sentences that are computed from them."""

from __future__ import annotations

from collections.abc import Sequence

from training.study_table import Row, Table

NEAR = 0.01  # of the best figure on validation: what counts as no loss when the smallest variant is looked for


def findings(table: Table) -> list[str]:
    """Sentences about quality, cost, rank and target modules; only those that the study's grid can answer."""
    parts = [_best(table), _tests(table), *_full_against_lora(table), _smallest(table), *_targets(table), *_ranks(table)]
    return [part for part in parts if part]


def _best(table: Table) -> str:
    row, figure = table.best, table.best.figures[table.headline]
    return (
        f"Best on validation is **{row.variant.name}**: {table.headline} {figure.mean:.3f} on {table.split} "
        f"(95 % interval {figure.low:.3f} to {figure.high:.3f}) with {row.first['trainable_parameters']:,} trained parameters."
    )


def _tests(table: Table) -> str:
    others = [row for row in table.rows if row is not table.reference]
    better = [row.variant.name for row in others if row.differs and row.paired and row.paired.difference > 0]
    worse = [row.variant.name for row in others if row.differs and row.paired and row.paired.difference < 0]
    name = table.reference.variant.name
    if not others:
        return ""
    if not better and not worse:
        return f"No variant differs from **{name}** in {table.headline} beyond chance (p < 0.05 after Holm's correction)."
    sides = [(names, word) for names, word in ((better, "better"), (worse, "worse")) if names]
    found = "; ".join(f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} {word}" for names, word in sides)
    rest = len(others) - len(better) - len(worse)
    more = f"; the other {rest} differ no more than chance would" if rest else ""
    return f"Against **{name}**, {found} (p < 0.05 after Holm's correction){more}."


def _full_against_lora(table: Table) -> list[str]:
    """For each base model: the best LoRA variant beside its full fine-tuning."""
    found = []
    for base in dict.fromkeys(row.variant.base for row in table.rows):
        rows = [row for row in table.rows if row.variant.base == base]
        full = next((row for row in rows if row.variant.is_full), None)
        lora = max((row for row in rows if not row.variant.is_full), key=lambda row: row.validation, default=None)
        if full is not None and lora is not None:
            found.append(_beside(table, base, full, lora))
    return found


def _beside(table: Table, base: str, full: Row, lora: Row) -> str:
    difference = 100 * (lora.figures[table.headline].mean - full.figures[table.headline].mean)
    share = 100 * lora.first["trainable_parameters"] / full.first["trainable_parameters"]
    smaller = full.mean("file_bytes") / lora.mean("file_bytes")
    time = lora.mean("seconds_per_epoch") / full.mean("seconds_per_epoch")
    memory = lora.mean("peak_memory_bytes") / full.mean("peak_memory_bytes")
    test = lora.paired if full is table.reference else None
    sure = f" (95 % interval {100 * test.low:+.1f} to {100 * test.high:+.1f})" if test else ""
    return (
        f"On {base}, the best LoRA on validation ({lora.variant.name.removeprefix(f'{base} ')}) is {difference:+.1f} points of "
        f"{table.headline} from full fine-tuning{sure}, trains {share:.2g} % of the parameters, takes {time:.2f} × as long "
        f"an epoch and {memory:.2f} × the memory, and its file is {smaller:,.0f} times smaller "
        f"({lora.mean('file_bytes') / 1e6:.3g} against {full.mean('file_bytes') / 1e6:.3g} MB)."
    )


def _smallest(table: Table) -> str:
    near = [row for row in table.rows if row.validation >= table.best.validation - NEAR]
    row = min(near, key=lambda row: row.mean("file_bytes"))
    if row is table.best:
        return ""
    return (
        f"The smallest file within {100 * NEAR:g} point of the best on validation is **{row.variant.name}**: "
        f"{row.mean('file_bytes') / 1e6:.3g} MB, {table.headline} {row.figures[table.headline].mean:.3f} on {table.split}."
    )


def _targets(table: Table) -> list[str]:
    """For each base model with two sets of target modules: their mean difference over the ranks that both have."""
    found = []
    for base in dict.fromkeys(row.variant.base for row in table.rows):
        by_target = _by_target([row for row in table.rows if row.variant.base == base])
        if len(by_target) == 2:  # noqa: PLR2004 - a difference takes two
            (one, these), (other, those) = by_target.items()
            shared = sorted(set(these) & set(those))
            gaps = [these[r].figures[table.headline].mean - those[r].figures[table.headline].mean for r in shared]
            if gaps:
                found.append(
                    f"On {base}, LoRA on {one} is {100 * sum(gaps) / len(gaps):+.1f} points of {table.headline} from LoRA on "
                    f"{other}, mean over rank{'s' * (len(shared) > 1)} {', '.join(map(str, shared))}."
                )
    return found


def _ranks(table: Table) -> list[str]:
    """For each base model and set of target modules with several ranks: the figure at the lowest, the best, the highest."""
    found = []
    for base in dict.fromkeys(row.variant.base for row in table.rows):
        for target, rows in _by_target([row for row in table.rows if row.variant.base == base]).items():
            if len(rows) > 1:
                best = max(rows, key=lambda r: rows[r].validation)
                shown = [f"{rows[r].figures[table.headline].mean:.3f} at r={r}" for r in (min(rows), max(rows))]
                found.append(
                    f"On {base}, LoRA on {target} goes from {shown[0]} to {shown[1]}; validation would choose r={best} "
                    f"({rows[best].figures[table.headline].mean:.3f})."
                )
    return found


def _by_target(rows: Sequence[Row]) -> dict[str, dict[int, Row]]:
    found: dict[str, dict[int, Row]] = {}
    for row in rows:
        if not row.variant.is_full:
            found.setdefault(row.variant.recipe.target_modules, {})[row.variant.recipe.r] = row
    return found
