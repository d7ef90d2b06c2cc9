"""The options of the commands that train on questions about images: how data is read, and the shape of the heads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[Path, typer.Argument(help="folder of DAQUAR, easy-vqa or VQA v2, a CSV with image paths, or easy-vqa")]
Cache = Annotated[Path, typer.Option(help="folder for embeddings, kept by content")]
Members = Annotated[int, typer.Option(min=1, help="heads side by side, each trained by itself")]
MemberSize = Annotated[int, typer.Option(min=1, help="width of each")]
ImageScale = Annotated[float, typer.Option(min=0, help="of image features beside the question's")]
Grouped = Annotated[bool, typer.Option("--grouped", help="keep equal questions about one image on one side")]
Folds = Annotated[int, typer.Option(min=1, help="measure on every question, each by heads fitted without its fold; 1: not")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="leave out rows and images that cannot be read")]
MinCoverage = Annotated[float, typer.Option(min=0, max=1, help="least share of questions whose answer is in the list")]
MaxAnswers = Annotated[int, typer.Option(min=2, help="most answers of a list that the data does not bring")]
WordNet = Annotated[Path | None, typer.Option(help="folder of WordNet's dictionary files, for WUPS")]
CACHE = Path("runs/embeddings")
