"""The trials of a search, where processes die at every moment between asking and telling."""

from __future__ import annotations

from pathlib import Path

import pytest

import mainspring as ms
from kit.later import later
from mainspring.training.search.study import MOST_DEATHS, Study
from mainspring.training.search.trials import COMPLETE, FAILED, PRUNED, Ended, ended_of
from mainspring.training.space import Search

later("optuna")
SEARCH = Search("log_loss", space=ms.space(depth=ms.integer(1, 9), rate=ms.log_uniform(0.001, 1)))


def study(folder: Path, workers: int = 1) -> Study:
    return Study(folder / "study.db", SEARCH, seed=1, workers=workers)


def test_what_has_ended_is_kept_by_whoever_opens_it_next_and_the_best_is_the_least(tmp_path: Path) -> None:
    first = study(tmp_path)
    for value in (0.5, 0.3, 0.4):
        trial = first.ask()
        first.begun(trial.number, f"run{trial.number}")
        assert not first.report(trial.number, value, 0)
        first.report(trial.number, value, 0)  # the same step again is not an error
        first.tell(trial.number, Ended(COMPLETE, value))
    trial = first.ask()
    first.report(trial.number, 9.0, 1)
    first.tell(trial.number, Ended(PRUNED, 9.0, "too bad"))
    trial = first.ask()
    first.tell(trial.number, Ended(FAILED, None, "no reason"))
    first.tell(trial.number, Ended(COMPLETE, 0.0))  # the first word counts
    before = first.trials()
    first.close()
    again = study(tmp_path)
    assert again.trials() == before
    assert [each.state for each in before] == [COMPLETE] * 3 + [PRUNED, FAILED]
    assert before[4].reason == "no reason"
    assert before[3].steps == {1: 9.0}
    best = again.best()
    assert best is not None
    assert (best.number, best.value, best.run_id) == (1, 0.3, "run1")
    assert again.importance() == {}  # of three trials nobody can say
    drawn = [each.params for each in before]
    assert again.ask().params not in drawn  # the sampler does not begin anew
    again.close()


def test_a_trial_whose_process_died_is_tried_again_with_its_parameters_but_not_for_ever(tmp_path: Path) -> None:
    params = None
    for death in range(1, MOST_DEATHS + 1):
        dying = study(tmp_path)
        trial = dying.ask()
        assert params in (None, trial.params)
        params = trial.params
        dying.close()  # killed here

        after = study(tmp_path)
        assert [each.number for each in after.unended()] == [trial.number]
        assert after.lost(trial.number) == (death < MOST_DEATHS)
        assert after.unended() == []
        after.close()
    last = study(tmp_path)
    (only,) = last.trials()
    assert (only.state, only.params) == (FAILED, params)
    assert "3 of 3 times" in only.reason
    assert last.ask().params != params
    last.close()


def test_a_death_between_the_retry_and_the_word_of_it_makes_no_second_retry(tmp_path: Path) -> None:
    one = study(tmp_path)
    lost = one.ask()
    one.tell = lambda *_: None  # type: ignore[method-assign]
    one.lost(lost.number)
    one.close()
    two = study(tmp_path)
    assert two.lost(lost.number)
    assert two.ask().params == lost.params
    assert two.ask().params != lost.params
    two.close()


@pytest.mark.parametrize(
    ("tags", "status", "ended"),
    [
        ({}, "RUNNING", None),
        ({}, "KILLED", None),
        ({}, "FAILED", Ended(FAILED, None, "its process died while it was being closed")),
        ({"mainspring.trial.state": "complete", "mainspring.trial.value": "0.25"}, "RUNNING", None),
        ({"mainspring.trial.state": "complete", "mainspring.trial.value": "0.25"}, "FINISHED", Ended(COMPLETE, 0.25)),
        ({"mainspring.trial.state": "pruned", "mainspring.trial.value": "None"}, "FINISHED", Ended(PRUNED)),
        ({"mainspring.trial.state": "failed", "mainspring.trial.reason": "so"}, "FAILED", Ended(FAILED, None, "so")),
    ],
)
def test_a_run_says_how_its_trial_ended(tags: dict[str, str], status: str, ended: Ended | None) -> None:
    assert ended_of(tags, status) == ended
