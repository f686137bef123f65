"""Trials of one search, in Optuna's own tables, so that a killed search can resume and Optuna's tools can read it.

Only one process at a time asks and tells. A trial that is still running when a process opens the study belongs to a
dead process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import MissingExtra, Unavailable
from mainspring.training.search.trials import COMPLETE, FAILED, PRUNED, Ended
from mainspring.training.space import Dimension, Numbers, Search

if TYPE_CHECKING:
    import sqlalchemy as sa

MOST_DEATHS = 3  # dead processes by one parameter set, after which the trial counts as failed
_RUN, _REASON, _LOST, _RETRY_OF, _DEATHS = "run_id", "reason", "lost", "retry_of", "deaths"


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial: its parameters, run and result. `steps` maps step -> reported value."""

    number: int
    state: str  # complete, pruned, failed; running
    params: dict[str, Any]
    run_id: str
    value: float | None = None
    reason: str = ""
    seconds: float | None = None
    steps: dict[int, float] = field(default_factory=dict)


class Study:
    """The trials of one search.

    Args:
        at: The SQLite file of Optuna's tables, or a Postgres engine for this study alone.
        workers: Number of concurrent trials.
        name: Name of the study in the store.

    Raises:
        MissingExtra: Optuna is not installed.
    """

    def __init__(self, at: Path | sa.Engine, search: Search, *, seed: int, workers: int, name: str = "search") -> None:
        try:
            import optuna
        except ModuleNotFoundError as error:
            raise MissingExtra("A hyperparameter search", "search") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._search = search
        self._space = {name: _distribution(optuna, dimension) for name, dimension in search.space.items()}
        pruners = optuna.pruners
        pruner = {"median": pruners.MedianPruner, "halving": pruners.SuccessiveHalvingPruner, "none": pruners.NopPruner}
        self._storage = storage = _storage(optuna, at)
        self._study = optuna.create_study(
            storage=storage,
            study_name=name,
            load_if_exists=True,
            direction="maximize" if search.maximize else "minimize",
            pruner=pruner[search.pruner](),
        )
        # the sampler's state is not stored: a resumed one must not repeat earlier draws
        self._study.sampler = optuna.samplers.TPESampler(seed=seed + len(self._study.trials), constant_liar=workers > 1)
        self._open: dict[int, Any] = {}

    def close(self) -> None:
        """Close the store's connections."""
        self._storage.engine.dispose()

    def copy_to(self, path: Path) -> None:
        """Copy a study on Postgres to an SQLite file at `path`, for Optuna's own tools."""
        if self._storage.engine.dialect.name == "sqlite":
            return  # the study is already such a file
        path.unlink(missing_ok=True)
        into = _storage(self._optuna, path)
        with study_errors():
            self._optuna.copy_study(
                from_study_name=self._study.study_name, from_storage=self._storage, to_storage=into,
                to_study_name="search",
            )  # fmt: skip
        into.engine.dispose()

    def unended(self) -> list[Trial]:
        """Return the trials that have started and not ended."""
        return [trial for trial in map(_trial, self._study.trials) if trial.state == "running"]

    def ask(self) -> Trial:
        """Start a trial: a queued retry, or one with parameters from the sampler."""
        trial = self._study.ask(self._space)
        self._open[trial.number] = trial
        return Trial(trial.number, "running", dict(trial.params), "")

    def begun(self, number: int, run_id: str) -> None:
        """Record the run of a trial."""
        self._open[number].set_user_attr(_RUN, run_id)

    def report(self, number: int, value: float, step: int) -> bool:
        """Record an intermediate value of a trial and return whether to prune it."""
        trial = self._open[number]
        if step in trial.storage.get_trial(trial._trial_id).intermediate_values:
            return False  # the first report of a step counts, as in Optuna
        trial.report(value, step)
        return bool(trial.should_prune())

    def tell(self, number: int, ended: Ended) -> None:
        """Record the end of a trial; a trial that has ended already keeps its first result."""
        states = self._optuna.trial.TrialState
        state = {COMPLETE: states.COMPLETE, PRUNED: states.PRUNED, FAILED: states.FAIL}[ended.state]
        if ended.reason:
            self._note(number, _REASON, ended.reason)
        value = ended.value if ended.state == COMPLETE else None
        self._study.tell(number, value, state=state, skip_if_finished=True)
        self._open.pop(number, None)

    def lost(self, number: int) -> bool:
        """Handle the death of a trial's process: queue its parameters again, and return whether that was done.

        Parameters with `MOST_DEATHS` dead processes are not retried.
        """
        trials = self._study.trials
        trial = trials[number]
        deaths = int(trial.user_attrs.get(_DEATHS, 0)) + 1
        again = deaths < MOST_DEATHS and set(trial.params) == set(self._space)
        if again:
            self._note(number, _LOST, True)
            if not any(each.user_attrs.get(_RETRY_OF) == number for each in trials):
                self._study.enqueue_trial(trial.params, user_attrs={_RETRY_OF: number, _DEATHS: deaths})
        elif set(trial.params) != set(self._space):  # died before all parameters were drawn: nothing was tried
            self._note(number, _LOST, True)
        self.tell(number, Ended(FAILED, None, f"its process died ({deaths} of {MOST_DEATHS} times)"))
        return again

    def trials(self) -> list[Trial]:
        """Return the ended trials, without lost ones, in order of their start."""
        valid = [trial for trial in self._study.trials if _LOST not in trial.user_attrs]
        return [trial for trial in map(_trial, valid) if trial.state in (COMPLETE, PRUNED, FAILED)]

    def best(self) -> Trial | None:
        """Return the best completed trial."""
        sign = 1 if self._search.maximize else -1
        complete = [(sign * trial.value, trial) for trial in self.trials() if trial.value is not None]
        return max(complete, key=lambda each: each[0])[1] if complete else None

    def importance(self) -> dict[str, float]:
        """Return parameter -> importance, from comparing the better trials with the rest.

        Empty for fewer than four distinct values. Watanabe, Bansal, Hutter: PED-ANOVA (IJCAI 2023).
        """
        values = {trial.value for trial in self.trials() if trial.state == COMPLETE}
        if len(values) < 4:
            return {}
        importance = self._optuna.importance
        found = importance.get_param_importances(self._study, evaluator=importance.PedAnovaImportanceEvaluator())
        return {name: float(share) for name, share in found.items()}

    def _note(self, number: int, name: str, value: Any) -> None:
        self._storage.set_trial_user_attr(self._study.trials[number]._trial_id, name, value)


def _storage(optuna: Any, at: Path | sa.Engine) -> Any:
    make = optuna.storages.RDBStorage
    if isinstance(at, Path):
        return make(f"sqlite:///{at}", engine_kwargs={"connect_args": {"timeout": 60}})
    return make(at.url.render_as_string(hide_password=False), engine_kwargs={"pool": at.pool})


@contextmanager
def study_errors() -> Iterator[None]:
    """Translate errors of Optuna and the driver about a lost or locked store into `Unavailable`.

    Raises:
        Unavailable: The store did not answer.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("optuna.exceptions", "sqlalchemy.exc")):  # neither need be installed
            raise
        cause = error.__cause__ or error
        said = (str(getattr(cause, "orig", None) or cause).strip().splitlines() or [""])[0].rstrip(".")
        raise Unavailable(
            f"The store of the search's trials did not respond: {said}.",
            fix="check the store, and give the same command again: finished trials are not repeated.",
        ) from error


def _trial(frozen: Any) -> Trial:
    state = {"COMPLETE": COMPLETE, "PRUNED": PRUNED, "FAIL": FAILED, "RUNNING": "running"}.get(frozen.state.name, "")
    steps = dict(frozen.intermediate_values)
    value = frozen.value if state == COMPLETE else None
    return Trial(
        frozen.number,
        state,
        dict(frozen.params),
        str(frozen.user_attrs.get(_RUN, "")),
        value,
        str(frozen.user_attrs.get(_REASON, "")),
        frozen.duration.total_seconds() if frozen.duration else None,
        steps,
    )


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    if not isinstance(dimension, Numbers):
        return optuna.distributions.CategoricalDistribution(dimension.values)
    if dimension.whole:
        return optuna.distributions.IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return optuna.distributions.FloatDistribution(float(dimension.low), float(dimension.high), log=dimension.log)


def improved(trials: list[Trial], search: Search) -> Mapping[int, float]:
    """Return trial number -> best value so far, for every completed trial."""
    best: dict[int, float] = {}
    at: float | None = None
    for trial in trials:
        if trial.state == COMPLETE and trial.value is not None:
            better = max if search.maximize else min
            at = trial.value if at is None else better(at, trial.value)
            best[trial.number] = at
    return best
