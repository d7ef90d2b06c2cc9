"""The kinds of problem that an adapter answers, by transformers' names for them, and what each asks of a manifest."""

from __future__ import annotations

from typing import Final, Literal, get_args

from pydantic import ValidationInfo
from pydantic_core import PydanticCustomError

from service.wording import WORDED

SINGLE_LABEL: Final = "single_label_classification"
MULTI_LABEL: Final = "multi_label_classification"
REGRESSION: Final = "regression"
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
PROBLEM_TYPES: Final[tuple[ProblemType, ...]] = get_args(ProblemType)
FEWEST_LABELS = {SINGLE_LABEL: 2, MULTI_LABEL: 1, REGRESSION: 1}  # regression's labels are the names of its values
MOST_LABELS = 100_000
DEFAULT_THRESHOLD = 0.5


def check_problem_type(problem_type: ProblemType, info: ValidationInfo) -> ProblemType:
    """The problem type, where the manifest's task has it: a question about an image has one answer."""
    if problem_type != SINGLE_LABEL and info.data.get("task") == "visual-question-answering":
        raise PydanticCustomError(WORDED, f"must be '{SINGLE_LABEL}' for visual-question-answering")
    return problem_type


def check_labels(labels: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    """The labels, where they are distinct and enough for the manifest's problem type."""
    fewest = FEWEST_LABELS.get(info.data.get("problem_type", ""), 1)
    if len(labels) < fewest:
        raise PydanticCustomError(WORDED, f"must have at least {fewest} entries")
    if len(set(labels)) != len(labels):
        raise PydanticCustomError(WORDED, "must be distinct")
    return labels


def check_thresholds(thresholds: tuple[float, ...] | None, info: ValidationInfo) -> tuple[float, ...] | None:
    """The thresholds, where the manifest's problem type has any and there is one for each label."""
    if thresholds is None:
        return None
    if info.data.get("problem_type", MULTI_LABEL) != MULTI_LABEL:
        raise PydanticCustomError(WORDED, f"are for {MULTI_LABEL} only")
    labels = info.data.get("labels", thresholds)
    if len(thresholds) != len(labels):
        raise PydanticCustomError(WORDED, f"must have {len(labels)} entries, one for each label")
    return thresholds
