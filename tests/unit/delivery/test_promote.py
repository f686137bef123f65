"""A version goes live on evidence, in one step, or stays where it is; and it can be taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from kit.stage import Stage, fitted, frame, hours, rows
from mainspring.core.errors import Conflict, Corrupt, Invalid, NotFound
from mainspring.core.time import ManualClock
from mainspring.delivery.approving import needed, verdict
from mainspring.delivery.promote import previous_version
from mainspring.project.catalog import memory_catalog
from mainspring.registry.adapters.catalog import CatalogApprovals
from mainspring.registry.adapters.memory import MemoryVersions
from mainspring.registry.bundles import seal
from mainspring.registry.model import AliasMove, Approval, Bundle, ModelVersion
from mainspring.registry.ports import Check
from mainspring.security.adapters.accounts import CatalogAccounts
from mainspring.security.adapters.catalog import CatalogKeyStore
from mainspring.security.people import People
from mainspring.serving.model import Endpoint
from mainspring.training.gate_kinds import Gate
from mainspring.training.gates import approved, at_least, at_most, beats

GATES = (beats("auc", by=0.05), at_most("brier", 0.24))
ALL = ("V.a", "V.b", "V.c")
PEOPLE = People(CatalogAccounts(memory_catalog()), CatalogKeyStore(memory_catalog()))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_the_first_version_goes_live_against_the_baseline(stage: Stage) -> None:
    version = stage.register(ALL).version
    promotion = stage.promote(version, GATES, reason="the first")
    assert (promotion.promoted, promotion.version, promotion.previous) == (True, "1", None)
    assert [(each.against, each.passed) for each in promotion.results] == [("baseline", True), ("limit", True)]
    assert stage.champion == "1"
    assert stage.live == {"late": "1"}
    assert promotion.revision == stage.routes.revision() == 1


def test_a_version_that_falls_short_moves_nothing_and_says_by_how_much(stage: Stage) -> None:
    stage.promote(stage.register(ALL).version, GATES)
    second = stage.register(ALL, baseline={"auc": 0.99}, run_id="again").version
    promotion = stage.promote(second, GATES)
    assert not promotion.promoted
    assert promotion.previous == "1"
    failed = [each for each in promotion.results if not each.passed]
    assert [each.against for each in failed] == ["baseline"]
    assert failed[0].value is not None
    assert failed[0].short_by == pytest.approx(0.99 + 0.05 - failed[0].value)
    assert (stage.champion, stage.live, stage.routes.revision()) == ("1", {"late": "1"}, 1)
    assert stage.audit.read(1)[0].detail.startswith("version 2 refused: auc beats by 0.05 against baseline")


def test_the_champion_is_scored_on_the_candidates_rows(stage: Stage) -> None:
    """Both numbers are those that scikit-learn gives on the candidate's held-out rows."""
    stage.promote(stage.register(ALL).version)
    held_out = rows(seed=9)
    second = stage.register(("V.a", "V.b"), held_out=held_out.select(["V.a", "V.b", "_label"])).version

    def rebuild(champion: Bundle, lacking: pa.Table) -> pa.Table:
        assert [each.name for each in champion.manifest.inputs] == list(ALL)
        assert lacking.column_names == ["V.a", "V.b", "_at", "_label"]
        return lacking.append_column("V.c", held_out["V.c"])

    promotion = stage.promote(second, [beats("auc")], rebuild=rebuild)
    against = next(each for each in promotion.results if each.against == "champion 1")
    truth, training = held_out["_label"].to_numpy(), rows(seed=0)

    def auc(features: tuple[str, ...]) -> float:
        scores = fitted(features, training).predict_proba(frame(held_out, features))[:, 1]
        return float(roc_auc_score(truth, scores.astype(np.float32)))

    assert against.value == pytest.approx(auc(("V.a", "V.b")), abs=1e-3)
    assert against.needed == pytest.approx(auc(ALL), abs=1e-3)
    assert against.needed != pytest.approx(auc(("V.a", "V.b")), abs=1e-4)


def test_a_worse_version_does_not_replace_the_champion(stage: Stage) -> None:
    stage.promote(stage.register(("V.a",)).version)
    held_out = rows(seed=2)
    weak = stage.register(("V.b",), held_out=held_out.select(["V.b", "_label"])).version
    promotion = stage.promote(weak, [beats("auc")], rebuild=lambda champion, table: held_out)
    failed = [each for each in promotion.results if not each.passed]
    assert [each.against for each in failed] == ["champion 1"]
    assert failed[0].short_by is not None
    assert 0.05 < failed[0].short_by < 0.4
    assert stage.champion == "1"
    # The other way round it goes.
    other = Stage(stage.folder)
    other.promote(other.register(("V.b",)).version)
    strong = other.register(ALL, held_out=held_out).version
    assert other.promote(strong, [beats("auc")]).promoted


def later(table: pa.Table, first: int) -> pa.Table:
    return table.append_column("_at", hours(table.num_rows, first))


@pytest.mark.parametrize("rebuilt", [False, True])
def test_the_champion_is_compared_on_rows_that_it_was_not_trained_on(stage: Stage, rebuilt: bool) -> None:
    """The champion's own held-out rows begin at hour 400: of the candidate's rows, it may have seen those before."""
    stage.promote(stage.register(ALL, held_out=later(rows(seed=4), 400)).version)
    whole = rows(seed=9)
    features = ("V.a", "V.b") if rebuilt else ALL
    second = stage.register(features, held_out=later(whole, 0)).version
    promotion = stage.promote(
        second, [beats("auc")], rebuild=lambda champion, table: table.append_column("V.c", whole["V.c"])
    )
    against = next(each for each in promotion.results if each.against == "champion 1")
    unseen = whole.slice(400)
    scores = fitted(ALL, rows(seed=0)).predict_proba(frame(unseen, ALL))[:, 1]
    expected = roc_auc_score(unseen["_label"].to_numpy(), scores.astype(np.float32))
    assert against.needed == pytest.approx(expected, abs=1e-3)
    assert "on 200 of the 600 held-out rows: champion 1 was trained on data until 1970-01-17T16:00:00Z" in str(against)


@pytest.mark.parametrize(("begins", "promoted"), [(570, True), (571, False), (9_000, False)])
def test_too_few_rows_that_the_champion_never_saw_are_refused(stage: Stage, begins: int, promoted: bool) -> None:
    stage.promote(stage.register(ALL, held_out=later(rows(seed=4), begins)).version)
    promotion = stage.promote(stage.register(ALL, held_out=later(rows(seed=4), 0)).version, [beats("auc")])
    assert promotion.promoted is promoted
    against = next(each for each in promotion.results if each.against == "champion 1")
    if not promoted:
        assert f"only on {max(0, 600 - begins)} of the 600 held-out rows" in against.note
        assert "the last held-out row is of 1970-01-25T23:00:00Z" in against.note
        assert "Train on newer data" in against.note


def test_a_champion_of_which_nobody_knows_what_it_saw_is_incomparable(stage: Stage) -> None:
    made = stage.bundles.load(stage.register(ALL).digest)
    kept = {name: content for name, content in made.files.items() if name != "holdout.parquet"}
    stage.promote(stage.add(seal(made.manifest, kept, stage.key)).version)
    promotion = stage.promote(stage.register(ALL, run_id="again").version, [beats("auc")])
    assert not promotion.promoted
    assert "the training period of champion 2 is unknown" in promotion.results[1].note


def test_inputs_that_nothing_can_rebuild_are_named(stage: Stage) -> None:
    stage.promote(stage.register(ALL).version)
    promotion = stage.promote(stage.register(("V.a",)).version, [beats("auc")])
    against = next(each for each in promotion.results if each.against == "champion 1")
    assert not promotion.promoted
    assert (against.passed, against.value) == (False, None)
    assert "champion 1 needs V.b, V.c" in against.note
    with pytest.raises(Invalid, match=r"have 3 rows and lack \['V.b', 'V.c'\]; 600 rows"):
        stage.promote("2", [beats("auc")], rebuild=lambda champion, table: table.slice(0, 3))


def test_without_beats_the_champion_is_not_asked(stage: Stage) -> None:
    stage.promote(stage.register(ALL).version)
    assert stage.promote(stage.register(("V.a",)).version, [at_most("brier", 0.3)]).promoted


def test_a_champion_of_another_task_is_incomparable(stage: Stage) -> None:
    stage.promote(stage.register(ALL, task="regression", outputs=("value",), measured={"rmse": 1.0}).version)
    promotion = stage.promote(stage.register(ALL).version, [beats("auc")])
    assert "has the task 'regression', not 'binary'" in promotion.results[1].note


def test_promoting_the_champion_again_heals_its_routes(stage: Stage) -> None:
    stage.promote(stage.register(ALL).version)
    second = stage.register(("V.a",))
    stage.versions.set_alias(AliasMove("late", "champion", "1", second.version, "ana", "promote", 5))  # then it died
    assert stage.live == {"late": "1"}
    promotion = stage.promote(second.version, [beats("auc", by=0.9)])
    assert (promotion.promoted, promotion.results) == (True, ())
    assert stage.live == {"late": "2"}
    assert len(stage.versions.moves("late")) == 2


def test_every_endpoint_that_names_the_champion_follows(stage: Stage) -> None:
    stage.endpoints = (
        Endpoint("late", model="late@champion"),
        Endpoint("canary", model="late@1"),
        Endpoint("second", model="late@champion"),
    )
    stage.promote(stage.register(ALL).version)
    stage.promote(stage.register(("V.a",)).version)
    assert stage.live == {"canary": "1", "late": "2", "second": "2"}


def test_a_move_is_recorded_and_audited(stage: Stage) -> None:
    stage.promote(stage.register(ALL).version)
    stage.clock.set(2_000)
    version = stage.register(("V.a",))
    stage.promote(version.version, reason="smaller", actor="bob")
    move = AliasMove("late", "champion", "1", "2", "bob", "promote: smaller", at=2_000, domain_at=2_000)
    assert stage.versions.moves("late")[0] == move
    event = stage.audit.read(1)[0]
    assert (event.at, event.actor, event.action, event.resource) == (2_000, "bob", "promote", "model/late")
    assert event.detail == f"version 1 -> version 2, bundle {version.digest[:12]}"


def test_the_numbers_are_in_the_audit_log_before_anything_moves(stage: Stage) -> None:
    """A process that dies right after the move leaves a move whose reasons are known."""

    class Died(Exception):
        pass

    class Dying(MemoryVersions):
        def set_alias(self, move: AliasMove, check: Any = lambda _: None) -> None:
            super().set_alias(move, check)
            raise Died

    versions = Dying()
    versions.register("late", stage.register(ALL).digest, "r", {}, 0)
    with pytest.raises(Died):
        stage.promote("1", [at_least("auc", 0.5)], versions=versions)
    assert versions.get("late", "champion").version == "1"
    (event,) = [each for each in stage.audit.read() if each.action == "promote"]
    assert event.detail.startswith("version 1 since auc at least 0.5 against limit: 0.")


def test_a_move_is_dated_by_the_clock_of_the_predictions_too(stage: Stage) -> None:
    stage.clock.set(2_000)
    stage.promote(stage.register(ALL).version, domain=ManualClock(7))
    stage.promote(stage.register(("V.a",)).version, domain=ManualClock(9))
    stage.rollback(domain=ManualClock(8))
    assert [(move.at, move.domain_at) for move in stage.versions.moves("late")] == [(2_000, 8), (2_000, 9), (2_000, 7)]


def test_a_promotion_that_comes_between_is_judged_against(stage: Stage) -> None:
    """While version 2 is judged, somebody promotes version 3, which is better: version 2 must not replace it unseen."""
    held_out = rows(seed=2)
    stage.promote(stage.register(("V.c",)).version)
    weak = stage.register(("V.b",), held_out=held_out).version
    strong = stage.register(ALL, held_out=held_out).version

    class Meanwhile(MemoryVersions):
        def set_alias(self, move: AliasMove, check: Check = lambda _: None) -> None:
            if move.new == weak and move.old == "1":
                super().set_alias(AliasMove("late", "champion", "1", strong, "bob", "promote", 1))
            super().set_alias(move, check)

    versions = Meanwhile()
    for registered in reversed(stage.versions.all("late")):
        versions.register("late", registered.digest, "r", {}, 0)
    versions.set_alias(AliasMove("late", "champion", None, "1", "ana", "promote", 0))
    promotion = stage.promote(weak, [beats("auc")], versions=versions, rebuild=lambda champion, table: held_out)
    assert not promotion.promoted
    assert promotion.previous == strong
    assert [each.against for each in promotion.results] == ["baseline", f"champion {strong}"]


def test_an_alias_that_keeps_moving_is_a_conflict(stage: Stage) -> None:
    version = stage.register(ALL).version

    class Restless(MemoryVersions):
        def set_alias(self, move: AliasMove, check: Check = lambda _: None) -> None:
            raise Conflict("moved")

    versions = Restless()
    versions.register("late", stage.versions.get("late", version).digest, "r", {}, 0)
    with pytest.raises(Conflict, match="moved 3 times"):
        stage.promote(version, versions=versions)
    assert stage.live == {}


def test_an_unknown_or_damaged_version_does_not_go_live(stage: Stage) -> None:
    with pytest.raises(NotFound):
        stage.promote("1")
    version = stage.register(ALL)
    content = dict(stage.blobs.get(version.digest))
    stage.blobs.delete(version.digest)
    stage.blobs.put(version.digest, {**content, "holdout.parquet": b"other"})
    with pytest.raises(Corrupt, match=r"holdout.parquet"):
        stage.promote(version.version)
    assert stage.live == {}


def test_a_champion_whose_bundle_disappeared_is_not_beaten_unseen(stage: Stage) -> None:
    champion = stage.register(("V.c",))
    stage.promote(champion.version)
    better = stage.register(ALL)
    stage.blobs.delete(champion.digest)
    with pytest.raises(NotFound):
        stage.promote(better.version, [beats("auc")])
    assert stage.live == {"late": champion.version}
    assert stage.promote(better.version, [at_least("auc", 0.5)]).promoted  # the way out: a gate that needs no champion


def test_a_rollback_goes_to_the_version_before(stage: Stage) -> None:
    for features in (("V.c",), ("V.b",), ("V.a",)):
        stage.promote(stage.register(features).version)
    assert stage.live == {"late": "3"}
    back = stage.rollback(reason="too many complaints")
    assert (back.promoted, back.version, back.previous, back.results) == (True, "2", "3", ())
    assert stage.live == {"late": "2"}
    assert stage.versions.moves("late")[0].reason == "rollback: too many complaints"
    event = stage.audit.read(1)[0]
    assert (event.action, event.detail[:22]) == ("rollback", "version 3 -> version 2")


def test_a_second_rollback_goes_one_further_and_not_forth_again(stage: Stage) -> None:
    for features in (("V.c",), ("V.b",), ("V.a",)):
        stage.promote(stage.register(features).version)
    stage.rollback()
    assert stage.rollback().version == "1"
    with pytest.raises(NotFound, match="has no earlier version"):
        stage.rollback()
    assert stage.live == {"late": "1"}
    # What is promoted after a rollback is rolled back to where it came from.
    stage.promote("3")
    assert stage.rollback().version == "1"


def test_without_a_champion_there_is_nothing_to_roll_back(stage: Stage) -> None:
    with pytest.raises(NotFound, match="names nothing"):
        stage.rollback()


def test_a_rollback_to_a_damaged_bundle_moves_nothing(stage: Stage) -> None:
    first = stage.register(("V.a",))
    stage.promote(first.version)
    stage.promote(stage.register(("V.b",)).version)
    stage.blobs.delete(first.digest)
    with pytest.raises(NotFound):
        stage.rollback()
    assert (stage.champion, stage.live) == ("2", {"late": "2"})


def test_the_previous_version_is_known_without_rolling_back(stage: Stage) -> None:
    assert previous_version(stage.versions, "late") is None
    stage.promote(stage.register(("V.a",)).version)
    assert previous_version(stage.versions, "late") is None
    stage.promote(stage.register(("V.b",)).version)
    assert previous_version(stage.versions, "late") == "1"


def test_a_rollback_passes_over_what_was_deleted(stage: Stage) -> None:
    for features in (("V.c",), ("V.b",), ("V.a",)):
        stage.promote(stage.register(features).version)
    stage.versions.remove("late", "2")
    assert previous_version(stage.versions, "late") == "1"
    assert stage.rollback().version == "1"
    assert previous_version(stage.versions, "late") is None


def test_what_is_no_gate_of_a_metric_counts_as_well(stage: Stage) -> None:
    version = stage.register(("V.a",))
    missing = verdict(2, version, ("ana",), [Approval("late", "1", version.digest, "ben", "", 0)], PEOPLE)
    refused = stage.promote("1", more=lambda: [missing])
    assert not refused.promoted
    assert refused.results == (missing,)
    assert "approved by ben" in str(missing)
    assert stage.audit.read()[0].detail.startswith("version 1 refused: approved by 2")
    enough = [Approval("late", "1", version.digest, name, "", 0) for name in ("ben", "cat", "ana")]
    assert stage.promote(
        "1", gates=[approved(2)], more=lambda: [verdict(2, version, ("ana",), enough, PEOPLE)]
    ).promoted


def test_approvals_are_counted_after_everything_else_was_judged(stage: Stage) -> None:
    """A comparison with the champion takes its time, in which somebody may take their word back."""
    stage.promote(stage.register(("V.b",)).version)
    held_out = rows(seed=2)
    version = stage.register(("V.a",), held_out=held_out.select(["V.a", "_label"]))
    approvals = CatalogApprovals(memory_catalog())
    approvals.add(Approval("late", "2", version.digest, "ben", "", 0))

    def withdrawn_meanwhile(champion: Bundle, table: pa.Table) -> pa.Table:
        approvals.withdraw("late", "2", "ben", actor="ben", reason="", at=1)
        return held_out

    refused = stage.promote(
        "2",
        [beats("auc", by=-1.0)],
        rebuild=withdrawn_meanwhile,
        more=lambda: [verdict(1, version, ("ana",), approvals.of("late", "2"), PEOPLE)],
    )
    assert [(each.gate, each.passed) for each in refused.results][-1] == ("approved by 1", False)
    assert all(each.passed for each in refused.results[:-1])
    assert stage.champion == "1"


@pytest.mark.parametrize(
    ("approvals", "passed"),
    [
        ([], False),
        ([("ben", "a")], True),
        ([("ana", "a")], False),
        ([("ben", "b")], False),
        ([("ana", "a"), ("ben", "a")], True),
    ],
)
def test_only_others_words_for_this_bundle_count(approvals: list[tuple[str, str]], passed: bool) -> None:
    version = ModelVersion("late", "1", "a", "run", 0)
    given = [Approval("late", "1", digest, name, "", 0) for name, digest in approvals]
    assert verdict(1, version, ("ana",), given, PEOPLE).passed is passed


def test_the_larger_number_of_approvals_counts() -> None:
    assert needed([], 0) == 0
    assert needed([], 2) == 2
    assert needed([approved(1), approved(3)], 2) == 3
    with pytest.raises(Invalid, match=r"0\.5 approvals"):
        needed([Gate("approved", "approvals", 0.5)], 0)
    with pytest.raises(Invalid, match="0 approvals"):
        needed([approved(0)], 0)
