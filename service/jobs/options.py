"""What a caller may choose of a training: the recipe, and how the data are read. ``training.job`` hands it on by name."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import BadRequest
from service.wording import describe

MOST_LABELS, MOST_ROWS = 1000, 4096
Column = Annotated[str, Field(min_length=1, max_length=500)]


class TrainingOptions(BaseModel):
    """Every option, all of them optional: what is not given is as in ``quickchange train``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    r: Annotated[int, Field(ge=1)] | None = None
    lora_alpha: Annotated[int, Field(ge=1, le=4096)] | None = None
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    target_modules: Annotated[str, Field(pattern=r"^[\w.-]+(,[\w.-]+)*$", max_length=500)] | None = None
    epochs: Annotated[int, Field(ge=1, le=1000)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=MOST_ROWS)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0, le=1)] | None = None
    warmup: Annotated[float, Field(ge=0, le=1)] | None = None
    average: Annotated[float, Field(ge=0, le=1)] | None = None
    r_drop: Annotated[float, Field(ge=0, le=1000)] | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] | None = None
    class_weights: Literal["none", "sqrt", "balanced"] | None = None
    max_length: Annotated[int, Field(ge=2, le=8192)] | None = None
    precision: Literal["auto", "fp32", "bf16"] | None = None
    select: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    patience: Annotated[int, Field(ge=0, le=1000)] | None = None
    calibrate: bool | None = None

    text_column: Column | None = None
    label_column: Column | None = None
    problem_type: Literal["auto", "single_label_classification", "multi_label_classification", "regression"] | None = None
    label_separator: Annotated[str, Field(min_length=1, max_length=8)] | None = None
    labels: Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=1, max_length=MOST_LABELS)] | None = None
    skip_bad: bool | None = None

    @classmethod
    def read(cls, data: bytes, max_rank: int) -> Self:
        """The options in a JSON object; raises :class:`BadRequest`, naming each fault and what is accepted."""
        try:
            options = cls.model_validate_json(data)
        except ValidationError as error:
            faults = error.errors(include_url=False)
            if faults[0]["type"] == "json_invalid":
                raise BadRequest("options is not JSON; accepted: an object with options of the training") from None
            listed = f"; accepted: {', '.join(cls.model_fields)}" if any(f["type"] == "extra_forbidden" for f in faults) else ""
            raise BadRequest(f"options: {'; '.join(describe(faults))}{listed}") from None
        if options.r is not None and options.r > max_rank:
            raise BadRequest(f"options: r must be at most {max_rank}, the highest rank that this server serves")
        return options
