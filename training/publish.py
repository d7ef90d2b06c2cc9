"""Put a bundle into a local adapters folder, checked as the server checks it; for a running server, push it instead.

python -m training.publish runs/sentiment --alias live
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from service.errors import QuickchangeError
from service.store.bundle import TEXT_CLASSIFICATION, read_bundle
from service.store.registry import Registry
from service.tasks.lifecycle import Lifecycle
from service.tasks.standalone import text_task, vqa_task

console = Console(highlight=False)


def main(
    folder: Annotated[Path, typer.Argument(help="a bundle, as the training scripts write it, or a PEFT adapter's folder")],
    name: Annotated[str | None, typer.Option(help="adapter name; else the manifest's, else the folder's")] = None,
    alias: Annotated[str | None, typer.Option(help="alias to point at the new version, such as live")] = None,
    adapters_dir: Annotated[Path, typer.Option(help="folder of the adapter versions")] = Path("adapters"),
    base_model: Annotated[str, typer.Option(help="base model to check text adapters against")] = "minilm",
    image_encoder: Annotated[str, typer.Option(help="image encoder to check VQA adapters against")] = "tf_efficientnet_lite0",
    sentence_encoder: Annotated[str, typer.Option(help="sentence encoder to check VQA adapters against")] = "all-MiniLM-L6-v2",
) -> None:
    """Check the bundle in FOLDER completely, store it as the next version, and point the alias at it."""
    try:
        bundle = read_bundle(folder)
        registry = Registry.open(adapters_dir)
        is_text = bundle.manifest.task == TEXT_CLASSIFICATION
        task = text_task(base_model, registry) if is_text else vqa_task(image_encoder, sentence_encoder, registry)
        lifecycle = Lifecycle(registry, task.residency, {bundle.manifest.task: task})
        ref, is_new = lifecycle.publish(name or bundle.manifest.name or folder.resolve().name, bundle, alias)
    except QuickchangeError as error:
        console.print(f"[red]error:[/] {error}", soft_wrap=True)
        raise typer.Exit(1) from None
    console.print(f"[green]{ref}[/] {'published' if is_new else 'was there already'} in {adapters_dir}")


if __name__ == "__main__":
    typer.run(main)
