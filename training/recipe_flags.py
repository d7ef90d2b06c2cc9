"""The options by which commands choose how to train, where several have the same."""

from __future__ import annotations

from typing import Annotated

import typer

BaseModel = Annotated[str, typer.Option(help="minilm, a folder, or a hub id")]
LoraDropout = Annotated[float, typer.Option(help="dropout before each LoRA product")]
ClassWeights = Annotated[str, typer.Option(help="none, sqrt or balanced")]
MaxLength = Annotated[int, typer.Option(min=2, help="tokens; longer texts are cut")]
Precision = Annotated[str, typer.Option(help="auto, fp32 or bf16")]
