"""What an extraction has found as tables for a terminal: energy by layer, what LoRA cannot carry, and the ranks."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from training.extraction import ALL, Extraction, Found
from training.low_rank import energy_kept, uniform
from training.text_measure import CHOOSES, Figures


def layer_table(extraction: Extraction, ranks: Sequence[int]) -> Table:
    """The share of the squared change that each rank keeps, a row a layer and one for all."""
    changes, family = extraction.changes, extraction.base.family
    table = Table("layer", "of the change", *(f"rank {rank}" for rank in ranks), title="energy kept")
    sizes = {module: float(change.energies.sum()) for module, change in changes.items()}
    total = sum(sizes.values()) or 1.0
    for module, change in changes.items():
        alone = {module: change}
        kept = (f"{energy_kept(alone, uniform(alone, rank)):.1%}" for rank in ranks)
        table.add_row(module.removeprefix(f"{family.prefix}.encoder.layer."), f"{sizes[module] / total:.1%}", *kept)
    table.add_section()
    table.add_row("all", "", *(f"{energy_kept(changes, uniform(changes, rank)):.1%}" for rank in ranks))
    return table


def lost_table(found: Found) -> Table:
    """What LoRA carries and what it cannot: the share of the squared difference, and the figure without it."""
    table = Table("part of the encoder", "of the difference", f"{found.headline} without it", "change")
    shares = found.extraction.differences.shares()
    for name, share in shares.items():
        table.add_row(name, f"{share:.2%}", *_against(found, found.without.get(name, {})))
    table.add_section()
    table.add_row(f"{ALL} but the first", f"{1 - next(iter(shares.values())):.2%}", *_against(found, found.without.get(ALL, {})))
    return table


def rank_table(found: Found) -> Table:
    """The checkpoint and every candidate: energy, size and figures by split, with the change on validation."""
    splits = list(found.full)
    table = Table("", "energy", "highest rank", "MB", *(f"{found.headline}, {split}" for split in splits), "change", "kept")
    values = (f"{found.full[split][found.headline]:.4f}" for split in splits)
    table.add_row("checkpoint", "", "", "", *values, "", "100.0%" if splits else "")
    for each in found.candidates:
        name = f"[bold]{each.name} *[/]" if each is found.chosen else each.name
        values = (f"{each.figures[split][found.headline]:.4f}" for split in splits)
        size = f"{each.nbytes / 1e6:.2f}"
        lost = _against(found, each.figures)[1], _kept(found, each.figures)
        table.add_row(name, f"{each.energy:.1%}", str(each.largest), size, *values, *lost)
    return table


def _against(found: Found, figures: Figures) -> tuple[str, str]:
    """A figure on validation, and how far it is from the checkpoint's; nothing where nothing was measured."""
    if not figures:
        return "", ""
    value = figures[CHOOSES][found.headline]
    return f"{value:.4f}", f"{value - found.full[CHOOSES][found.headline]:+.4f}"


def _kept(found: Found, figures: Figures) -> str:
    reached = found.full[CHOOSES][found.headline] if figures else 0
    return f"{figures[CHOOSES][found.headline] / reached:.1%}" if reached > 0 else ""
