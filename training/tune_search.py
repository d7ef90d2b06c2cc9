"""The search for a recipe: what may be chosen, the trials in a database, and one trial."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from service.models.base_weights import base_fingerprint
from training.bundles import write_bundle
from training.data import DataError, TextData
from training.statistics import LOWER_IS_BETTER
from training.text_model import Recipe
from training.text_run import RunOptions, fit_text
from training.train_text_adapter import bundle_of

DATABASE, TRIALS, BUNDLE = "tune.db", "trials", "bundle"
WHY, FOLDER, METRICS = "why", "folder", "metrics"  # what trials carry
WARM_UP_TRIALS, FIRST_JUDGED = 5, 2  # trials that are let be; the epoch from which the others are judged
PRUNERS = ("median", "hyperband", "none")


@dataclass(frozen=True, slots=True)
class Space:
    """What a trial may choose: one of the ranks, scalings (lora_alpha / r) and target modules, and numbers within bounds."""

    ranks: Sequence[int]
    targets: Sequence[str]
    epochs: tuple[int, int]
    learning_rate: tuple[float, float] = (1e-4, 5e-3)
    scalings: Sequence[float] = (1, 2, 4)
    most_dropout: float = 0.3

    def suggest(self, trial: Trial, common: Recipe) -> Recipe:
        """The recipe of a trial; what is not searched is as in ``common``."""
        rank = trial.suggest_categorical("rank", list(self.ranks))
        scaling = trial.suggest_categorical("scaling", list(self.scalings))
        return replace(
            common,
            r=rank,
            lora_alpha=max(1, round(scaling * rank)),
            target_modules=trial.suggest_categorical("target_modules", list(self.targets)),
            learning_rate=trial.suggest_float("learning_rate", *self.learning_rate, log=True),
            lora_dropout=trial.suggest_float("lora_dropout", 0.0, self.most_dropout, step=0.05),
            epochs=trial.suggest_int("epochs", *self.epochs),
        )


@dataclass(frozen=True, slots=True)
class Search:
    """A search in a folder: optuna's study, the data, and the recipe that trials change."""

    study: optuna.Study
    data: TextData
    source: str
    common: Recipe
    space: Space
    folder: Path

    @property
    def ended(self) -> list[FrozenTrial]:
        """The trials that ended by themselves, in order; not those that were interrupted, which are tried again."""
        trials = self.study.get_trials(deepcopy=False)
        return [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED) or WHY in t.user_attrs]

    @property
    def complete(self) -> list[FrozenTrial]:
        """The trials with a result."""
        return [trial for trial in self.ended if trial.state == TrialState.COMPLETE]

    def put_back(self, trial: Trial | FrozenTrial) -> None:
        """Let the next trial be this one again: where its checkpoints are, it goes on."""
        if trial.params:
            self.study.enqueue_trial(dict(trial.params))
        self.study.tell(trial.number, state=TrialState.FAIL)

    def try_one(self, watch: Any) -> FrozenTrial:
        """Carry out the next trial; one that runs into an error of a library fails alone.

        Raises :class:`DataError` and the like as training does, and what interrupts it, after putting the trial back.
        """
        trial = self.study.ask()
        try:
            return self._carry_out(trial, watch)
        except BaseException:
            if self.study.trials[trial.number].state == TrialState.RUNNING:
                self.put_back(trial)
            raise

    def _carry_out(self, trial: Trial, watch: Any) -> FrozenTrial:
        recipe = self.space.suggest(trial, self.common)
        folder = self.folder / TRIALS / _key(recipe)
        trial.set_user_attr(FOLDER, folder.name)

        def after_epoch(epoch: int, figures: Mapping[str, float]) -> None:
            trial.report(figures[recipe.select], epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        options = RunOptions(folder / "training", report_to=(), after_epoch=after_epoch, on_progress=watch, quiet=True)
        try:
            fitted = fit_text(self.data, recipe, options)
        except optuna.TrialPruned:
            shutil.rmtree(folder, ignore_errors=True)
            return self.study.tell(trial, state=TrialState.PRUNED)
        except (RuntimeError, ValueError) as error:
            trial.set_user_attr(WHY, f"{type(error).__name__}: {' '.join(str(error).split())}")
            shutil.rmtree(folder, ignore_errors=True)
            return self.study.tell(trial, state=TrialState.FAIL)
        write_bundle(bundle_of(fitted, self.data, self.folder.resolve().name.lower(), self.source), folder / BUNDLE)
        shutil.rmtree(folder / "training", ignore_errors=True)
        trial.set_user_attr(METRICS, fitted.metrics)
        return self.study.tell(trial, fitted.metrics["validation"][recipe.select])


@contextmanager
def opened(data: TextData, source: str, common: Recipe, space: Space, folder: Path, pruner: str) -> Iterator[Search]:
    """The search in ``folder``, begun there or gone on with; trials that died with their process are put back.

    Raises :class:`DataError` when the folder holds a search of other data or other choices.
    """
    identity = {**asdict(common), **asdict(space), "base_model": base_fingerprint(common.base_model), "data": data.digest}
    wanted = json.loads(json.dumps(identity))
    stops = _pruner(pruner, space.epochs[1])
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / DATABASE}")
    try:
        study = optuna.create_study(
            storage=storage,
            study_name="tune",
            direction="minimize" if common.select in LOWER_IS_BETTER else "maximize",
            pruner=stops,
            load_if_exists=True,
        )
        study.sampler = optuna.samplers.TPESampler(seed=common.seed + len(study.trials))
        found = study.user_attrs or wanted
        if different := sorted(key for key in wanted if found.get(key) != wanted[key]):
            key = different[0]
            raise DataError(
                f"{folder} holds a search with {key} {found.get(key)}, not {wanted[key]}: "
                "give the options of that search, or another --output"
            )
        for key, value in wanted.items():
            study.set_user_attr(key, value)
        search = Search(study, data, source, common, space, folder)
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            search.put_back(trial)
        yield search
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _pruner(name: str, epochs: int) -> optuna.pruners.BasePruner:
    if name not in PRUNERS:
        raise DataError(f"--pruner {name}: no such pruner; accepted: {', '.join(PRUNERS)}")
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=WARM_UP_TRIALS, n_warmup_steps=FIRST_JUDGED)
    return optuna.pruners.HyperbandPruner(1, epochs) if name == "hyperband" else optuna.pruners.NopPruner()


def _key(recipe: Recipe) -> str:
    return hashlib.sha256(json.dumps(asdict(recipe), sort_keys=True).encode()).hexdigest()[:12]
