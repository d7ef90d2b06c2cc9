"""Train every shipped adapter by its recipe, one after the other; each bundle is written to OUTPUT/<name>.

    python -m training.train_all ../shared/data --output runs

DATA holds TweetEval's tasks under ``tweeteval/`` and DAQUAR under ``daquar/``. On two CPU cores it takes about an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from service.errors import QuickchangeError
from service.store.bundle import Bundle
from training.bundles import write_bundle
from training.data import DataError, ReadOptions, load_text_data
from training.text_model import Recipe
from training.text_run import RunOptions
from training.train_text_adapter import source_name, train
from training.train_vqa_head import train as train_vqa
from training.vqa_data import load_vqa_data
from training.vqa_model import Recipe as VqaRecipe

STANCE = Recipe(epochs=15, select="macro_f1", lora_dropout=0.1)
SHIPPED = ReadOptions(skip_bad=True)  # TweetEval's hate has eight empty texts
TARGETS = ("abortion", "atheism", "climate", "feminist", "hillary")
console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Shipped:
    """A shipped text adapter: its folder under ``tweeteval/`` and its recipe."""

    folder: str
    recipe: Recipe


ADAPTERS = {
    "sentiment": Shipped("sentiment", Recipe(epochs=3, average=0.4, r_drop=1.0, class_weights="sqrt", select="macro_recall")),
    "irony": Shipped("irony", Recipe(epochs=6, lora_dropout=0.1)),
    "emotion": Shipped("emotion", Recipe(epochs=8, lora_dropout=0.1, select="macro_f1")),
    "offensive": Shipped("offensive", Recipe(epochs=3, lora_dropout=0.1)),
    "hate": Shipped("hate", Recipe(epochs=3, lora_dropout=0.1)),
    **{f"stance-{target}": Shipped(f"stance/{target}", STANCE) for target in TARGETS},
}

VQA = "vqa"
FOLDS = 10  # a tenth of DAQUAR tells an accuracy to three points, all of it to one


def train_one(name: str, data: Path, output: Path) -> Bundle:
    """Train the adapter called ``name`` by its recipe."""
    if name == VQA:
        recipe = VqaRecipe()
        return train_vqa(load_vqa_data(data / "daquar", recipe.seed), recipe, VQA, "daquar", output / "embeddings", folds=FOLDS)
    chosen = ADAPTERS[name]
    loaded = load_text_data(str(data / "tweeteval" / chosen.folder), SHIPPED, chosen.recipe.seed)
    source = source_name(data / "tweeteval" / chosen.folder)
    return train(loaded, chosen.recipe, name, source, RunOptions(output / ".state" / name))


def main(
    data: Annotated[Path, typer.Argument(help="folder with tweeteval/ and daquar/")],
    output: Annotated[Path, typer.Option(help="folder for the bundles")] = Path("runs"),
    only: Annotated[list[str] | None, typer.Option(help="adapters to train; repeat for more")] = None,
) -> None:
    """Train the shipped adapters, or those named by --only, and say where each bundle is."""
    names = only or [*ADAPTERS, VQA]
    unknown = sorted(set(names) - {*ADAPTERS, VQA})
    if unknown:
        console.print(f"[red]error:[/] no recipe for {unknown[0]!r}; there is one for {', '.join([*ADAPTERS, VQA])}")
        raise typer.Exit(1)
    for number, name in enumerate(names, 1):
        console.rule(f"{name} ({number} of {len(names)})")
        try:
            bundle = train_one(name, data, output)
        except (DataError, QuickchangeError) as error:
            console.print(f"[red]error:[/] {error}", soft_wrap=True)
            raise typer.Exit(1) from None
        write_bundle(bundle, output / name)
        console.print(f"[green]{output / name}[/]: {bundle.manifest.metrics}")


if __name__ == "__main__":
    typer.run(main)
