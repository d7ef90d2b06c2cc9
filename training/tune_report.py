"""A search's report: the best recipe, what decided, and every trial."""

from __future__ import annotations

from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from training.report import Report
from training.study_grid import shown_names
from training.study_plots import history, importances
from training.tune_search import METRICS, WHY, Search

CHOICES = ("rank", "scaling", "target_modules", "learning_rate", "lora_dropout", "epochs")
COLUMNS = ("trial", "figure", *(name.replace("_", " ") for name in CHOICES), "seconds", "ended")
ENOUGH = 4  # complete trials, before anything is said of what decides


def report_of(search: Search) -> Report:
    """The report of a search with at least one complete trial."""
    best, name = search.study.best_trial, search.common.select
    report = Report(f"Search for a recipe on {search.source}")
    kinds = {state: sum(trial.state == state for trial in search.ended) for state in TrialState}
    report.text(
        f"{len(search.ended)} trials on {shown_names([search.common.base_model])[0]}: {kinds[TrialState.COMPLETE]} complete, "
        f"{kinds[TrialState.PRUNED]} stopped early, {kinds[TrialState.FAIL]} failed. The figure is {name} on validation."
    )
    report.heading("The best recipe")
    report.table(["choice", "value"], [[choice.replace("_", " "), best.params[choice]] for choice in CHOICES])
    measured = best.user_attrs[METRICS]
    report.table(["figure", *measured], [[f, *(f"{measured[s][f]:.4f}" for s in measured)] for f in measured["validation"]])
    report.text(
        "The best of many trials is a little lucky on validation: the test split, where there is one, says what to expect."
    )
    report.heading("How it was found")
    report.plot(history(_values(search), _pruned(search), name.replace("_", "-")), "Trials")
    shares = decisive(search)
    if shares:
        report.plot(importances(shares), "What decides the figure")
    report.heading("All trials")
    report.table(COLUMNS, [row_of(search, trial) for trial in search.ended])
    report.figures.update(
        {
            "select": name,
            "best": {"trial": best.number, "value": best.value, "recipe": best.params, "metrics": measured},
            "importances": shares,
            "trials": [_figures(trial) for trial in search.ended],
        }
    )
    return report


def decisive(search: Search) -> dict[str, float]:
    """The share of the figure's variance that each choice explains (fANOVA), where enough complete trials differ."""
    if len(search.complete) < ENOUGH or len({trial.value for trial in search.complete}) == 1:
        return {}
    found: dict[str, float] = get_param_importances(search.study, evaluator=FanovaImportanceEvaluator(seed=0))
    return found


def row_of(search: Search, trial: FrozenTrial) -> list[object]:
    """A trial's row under :data:`COLUMNS`."""
    is_best = trial.state == TrialState.COMPLETE and trial.number == search.study.best_trial.number
    ended = {TrialState.COMPLETE: "best" if is_best else "complete", TrialState.PRUNED: "stopped early"}
    value = trial.value if trial.state == TrialState.COMPLETE else _last(trial)
    seconds = round(trial.duration.total_seconds(), 1) if trial.duration else None
    choices = [trial.params.get(choice) for choice in CHOICES]
    shown = [f"{choice:.2g}" if isinstance(choice, float) else choice for choice in choices]
    return [
        trial.number,
        None if value is None else f"{value:.4f}",
        *shown,
        seconds,
        ended.get(trial.state) or trial.user_attrs[WHY],
    ]


def _last(trial: FrozenTrial) -> float | None:
    return trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None


def _values(search: Search) -> list[tuple[int, float]]:
    return [(trial.number, trial.value) for trial in search.complete if trial.value is not None]


def _pruned(search: Search) -> list[tuple[int, float]]:
    stopped = [(trial.number, _last(trial)) for trial in search.ended if trial.state == TrialState.PRUNED]
    return [(number, value) for number, value in stopped if value is not None]


def _figures(trial: FrozenTrial) -> dict[str, object]:
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.value if trial.state == TrialState.COMPLETE else None,
        "by_epoch": trial.intermediate_values,
        "recipe": trial.params,
        "metrics": trial.user_attrs.get(METRICS),
        "why": trial.user_attrs.get(WHY),
    }
