"""What every adapter of the registry's ports has to do. Derive a test class and give it the fixture."""

from __future__ import annotations

import math
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.time import SECOND
from mainspring.registry.model import AliasMove, Approval, Deletion, TrustedKey
from mainspring.registry.ports import Approvals, Blobs, Deletions, ModelVersions, Tracking, TrustedKeys
from mainspring.registry.runs import NAME, PARENT
from mainspring.registry.searching import Axis, Bucket, Column, Condition, Kind, Order, RunPage, RunQuery, RunSearch

A, B = "a" * 64, "b" * 64


class TrackingConformance:
    """The fixture `tracking` is an empty store."""

    def test_a_run_begins_running_with_its_tags(self, tracking: Tracking) -> None:
        run_id = tracking.start("late", {"seed": "7"}, 3 * SECOND)
        run = tracking.get(run_id)
        assert (run.model, run.status, run.started_at, run.ended_at) == ("late", "RUNNING", 3 * SECOND, None)
        assert (dict(run.tags), dict(run.params), dict(run.metrics)) == ({"seed": "7"}, {}, {})

    def test_what_is_logged_is_there(self, tracking: Tracking) -> None:
        run_id = tracking.start("late", {"kept": "1"}, SECOND)
        tracking.log(run_id, params={"depth": "3"}, metrics=[("auc", 0.5, 0, SECOND)], tags={"note": "x"})
        tracking.log(run_id, metrics=[("auc", 0.75, 1, 2 * SECOND), ("brier", 0.1, 0, 2 * SECOND)])
        run = tracking.get(run_id)
        assert dict(run.params) == {"depth": "3"}
        assert dict(run.metrics) == {"auc": 0.75, "brier": 0.1}
        assert dict(run.tags) == {"kept": "1", "note": "x"}

    def test_more_than_one_batch_is_logged(self, tracking: Tracking) -> None:
        run_id = tracking.start("late", {}, SECOND)
        metrics = [("loss", float(step), step, SECOND + step * 1000) for step in range(2_500)]
        params = {f"p{number}": str(number) for number in range(250)}
        tracking.log(run_id, metrics=metrics, params=params, tags=params)
        run = tracking.get(run_id)
        assert run.metrics["loss"] == 2_499.0
        assert dict(run.params) == params
        assert dict(run.tags) == params

    def test_nan_stays_nan(self, tracking: Tracking) -> None:
        run_id = tracking.start("late", {}, SECOND)
        tracking.log(run_id, metrics=[("nothing", math.nan, 0, SECOND)])
        assert math.isnan(tracking.get(run_id).metrics["nothing"])

    def test_the_newest_is_the_largest_by_step_then_instant_then_value(self, tracking: Tracking) -> None:
        run_id = tracking.start("late", {}, SECOND)
        tracking.log(run_id, metrics=[("loss", 0.5, 7, 2 * SECOND), ("loss", 0.9, 3, 9 * SECOND)])
        assert tracking.get(run_id).metrics["loss"] == 0.5
        tracking.log(run_id, metrics=[("loss", 0.1, 6, 20 * SECOND)])
        assert tracking.get(run_id).metrics["loss"] == 0.5
        tracking.log(run_id, metrics=[("loss", 0.3, 7, 2 * SECOND)])
        assert tracking.get(run_id).metrics["loss"] == 0.5
        tracking.log(run_id, metrics=[("loss", 0.2, 7, 3 * SECOND), ("loss", 0.7, 7, 2 * SECOND)])
        assert tracking.get(run_id).metrics["loss"] == 0.2

    def test_the_history_is_whole_in_order_and_has_the_same_entry_once(self, tracking: Tracking) -> None:
        run_id = tracking.start("late", {}, SECOND)
        entries = [("loss", 1.0 / (step + 1), step, SECOND + step % 3 * 1000) for step in range(1_500)]
        tracking.log(run_id, metrics=[*entries, ("other", 1.0, 0, SECOND)])
        tracking.log(run_id, metrics=entries[:700])  # as a flush that is tried again
        tracking.log(run_id, metrics=[("loss", 5.0, 2, SECOND)])
        assert tracking.history(run_id, "loss") == sorted(
            [*((value, step, at) for _, value, step, at in entries), (5.0, 2, SECOND)],
            key=lambda entry: (entry[1], entry[2], entry[0]),
        )
        assert tracking.history(run_id, "nothing") == []

    def test_metrics_of_several_writers_are_all_there(self, tracking: Tracking) -> None:
        run_id = tracking.start("late", {}, SECOND)

        def write(number: int) -> None:
            for start in range(0, 100, 20):
                tracking.log(
                    run_id,
                    metrics=[("shared", float(number), step * 4 + number, SECOND) for step in range(start, start + 20)],
                )

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        assert [step for _, step, _ in tracking.history(run_id, "shared")] == list(range(400))
        assert tracking.get(run_id).metrics["shared"] == 3.0

    @pytest.mark.parametrize("name", ["loss!", "", "../x", "a//b", "/a", ".", "x" * 251, "a\nb", "fünf%"])
    @pytest.mark.parametrize("kind", ["metric", "parameter", "tag"])
    def test_a_bad_name_is_named_and_nothing_is_kept(self, tracking: Tracking, name: str, kind: str) -> None:
        run_id = tracking.start("late", {}, SECOND)
        good = {"metrics": [("good", 1.0, 0, SECOND)], "params": {"good": "1"}, "tags": {"good": "1"}}
        bad: dict[str, Any] = {
            "metric": {**good, "metrics": [("good", 1.0, 0, SECOND), (name, 1.0, 0, SECOND)]},
            "parameter": {**good, "params": {name: "1"}},
            "tag": {**good, "tags": {name: "1"}},
        }[kind]
        with pytest.raises(Invalid, match=f"cannot name a {kind}"):
            tracking.log(run_id, **bad)
        run = tracking.get(run_id)
        assert (dict(run.params), dict(run.metrics), dict(run.tags)) == ({}, {}, {})

    @pytest.mark.parametrize("name", ["loss", "val/loss", "system/cpu: 1", "größe", "a b.c-d_e", "x" * 250])
    def test_a_good_name_is_taken(self, tracking: Tracking, name: str) -> None:
        run_id = tracking.start("late", {}, SECOND)
        tracking.log(run_id, metrics=[(name, 1.0, 0, SECOND)], params={name: "1"}, tags={name: "1"})
        run = tracking.get(run_id)
        assert dict(run.metrics) == {name: 1.0}
        assert dict(run.params) == dict(run.tags) == {name: "1"}

    def test_a_parameter_does_not_change(self, tracking: Tracking) -> None:
        run_id = tracking.start("late", {}, SECOND)
        tracking.log(run_id, params={"depth": "3"})
        tracking.log(run_id, params={"depth": "3", "rate": "0.1"})
        with pytest.raises(Conflict, match=r"'depth' of run .* is '3' and cannot become '4'"):
            tracking.log(run_id, params={"depth": "4"}, metrics=[("loss", 1.0, 0, SECOND)])
        run = tracking.get(run_id)
        assert (dict(run.params), dict(run.metrics)) == ({"depth": "3", "rate": "0.1"}, {})

    def test_a_run_may_be_part_of_another(self, tracking: Tracking) -> None:
        parent = tracking.start("late", {}, SECOND)
        child = tracking.start("late", {PARENT: parent, NAME: "fold 1"}, SECOND)
        assert dict(tracking.get(child).tags) == {PARENT: parent, NAME: "fold 1"}
        with tracking.active(child):
            tracking.log(child, metrics=[("loss", 1.0, 0, SECOND)])
        assert tracking.get(child).status == "RUNNING"
        assert dict(tracking.get(parent).metrics) == {}

    def test_a_tag_is_replaced(self, tracking: Tracking) -> None:
        run_id = tracking.start("late", {"stage": "read"}, SECOND)
        tracking.log(run_id, tags={"stage": "fit"})
        assert tracking.get(run_id).tags["stage"] == "fit"

    def test_a_finished_run_can_still_be_tagged(self, tracking: Tracking) -> None:
        run_id = tracking.start("late", {}, SECOND)
        tracking.finish(run_id, "FINISHED", 5 * SECOND)
        tracking.log(run_id, tags={"version": "1"})
        run = tracking.get(run_id)
        assert (run.status, run.ended_at, run.tags["version"]) == ("FINISHED", 5 * SECOND, "1")

    def test_artefacts_come_back_byte_for_byte_and_are_replaced(self, tracking: Tracking) -> None:
        run_id = tracking.start("late", {}, SECOND)
        tracking.log_artefact(run_id, "environment.json", b"{}")
        tracking.log_artefact(run_id, "environment.json", b"\x00\xff\n")
        assert tracking.artefact(run_id, "environment.json") == b"\x00\xff\n"

    def test_artefacts_may_have_folders_and_are_listed_with_their_bytes(
        self, tracking: Tracking, tmp_path: Path
    ) -> None:
        run_id = tracking.start("late", {}, SECOND)
        assert tracking.artefacts(run_id) == {}
        (tmp_path / "big.bin").write_bytes(bytes(3_000_000))
        tracking.log_artefact(run_id, "plots/roc.png", b"png")
        tracking.log_artefact(run_id, "big.bin", tmp_path / "big.bin")
        tracking.log_artefact(run_id, "plots/pr.png", b"")
        assert tracking.artefacts(run_id) == {"big.bin": 3_000_000, "plots/pr.png": 0, "plots/roc.png": 3}
        assert tracking.artefact(run_id, "plots/roc.png") == b"png"
        assert tracking.artefact(run_id, "big.bin") == bytes(3_000_000)

    def test_a_file_to_keep_that_is_not_there_is_named(self, tracking: Tracking, tmp_path: Path) -> None:
        run_id = tracking.start("late", {}, SECOND)
        for path in (tmp_path / "absent.png", tmp_path):
            with pytest.raises(NotFound, match=re.escape(str(path))):
                tracking.log_artefact(run_id, "plot.png", path)
        assert tracking.artefacts(run_id) == {}

    @pytest.mark.parametrize(
        "name",
        ["../secret", "/etc/passwd", "a//b", "a/../b", "a/", "/", "", ".hidden", "a/.b", "a..b", "a/" * 20 + "b"],
    )
    def test_an_artefact_is_no_path(self, tracking: Tracking, name: str) -> None:
        run_id = tracking.start("late", {}, SECOND)
        with pytest.raises(Invalid):
            tracking.log_artefact(run_id, name, b"x")
        with pytest.raises((Invalid, NotFound)):
            tracking.artefact(run_id, name)

    def test_the_unknown_is_not_found(self, tracking: Tracking) -> None:
        unknown = "0" * 32
        run_id = tracking.start("late", {}, SECOND)
        with pytest.raises(NotFound, match=unknown):
            tracking.get(unknown)
        with pytest.raises(NotFound):
            tracking.log(unknown, params={"a": "1"})
        with pytest.raises(NotFound):
            tracking.finish(unknown, "FINISHED", SECOND)
        with pytest.raises(NotFound):
            tracking.log(unknown, metrics=[("a", 1.0, 0, SECOND)])
        with pytest.raises(NotFound):
            tracking.history(unknown, "a")
        with pytest.raises(NotFound), tracking.active(unknown):
            pass
        with pytest.raises(NotFound, match=r"plot\.png"):
            tracking.artefact(run_id, "plot.png")

    def test_search_is_newest_first_and_filters(self, tracking: Tracking) -> None:
        runs = [tracking.start(model, {}, at * SECOND) for at, model in enumerate(["late", "fraud", "late", "late"])]
        tracking.finish(runs[2], "FAILED", 9 * SECOND)
        assert [run.id for run in tracking.search()] == runs[::-1]
        assert [run.id for run in tracking.search("late")] == [runs[3], runs[2], runs[0]]
        assert [run.id for run in tracking.search("late", status="RUNNING")] == [runs[3], runs[0]]
        assert [run.id for run in tracking.search(limit=1)] == [runs[3]]
        assert tracking.search("nobody") == []


class VersionsConformance:
    """The fixture `versions` is an empty store."""

    def test_versions_count_up_by_model(self, versions: ModelVersions) -> None:
        first = versions.register("late", A, "run1", {"dataset": "d1"}, SECOND)
        second = versions.register("late", B, "run2", {}, 2 * SECOND)
        other = versions.register("fraud", A, "run3", {}, 3 * SECOND)
        assert [version.version for version in (first, second, other)] == ["1", "2", "1"]
        assert versions.get("late", "1") == first
        assert (first.digest, first.run_id, first.created_at, dict(first.tags)) == (
            A,
            "run1",
            SECOND,
            {"dataset": "d1"},
        )

    def test_a_digest_keeps_its_version(self, versions: ModelVersions) -> None:
        first = versions.register("late", A, "run1", {}, SECOND)
        versions.register("late", B, "run2", {}, 2 * SECOND)
        assert versions.register("late", A, "run3", {"x": "y"}, 3 * SECOND) == first
        assert len(versions.all("late")) == 2

    def test_the_same_digest_registered_at_once_gets_one_version(self, versions: ModelVersions) -> None:
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda number: versions.register("late", A, f"run{number}", {}, SECOND), range(4)))
        assert {version.version for version in made} == {"1"}
        assert len(versions.all("late")) == 1

    def test_all_is_newest_first(self, versions: ModelVersions) -> None:
        versions.register("late", A, "run1", {}, SECOND)
        versions.register("fraud", A, "run2", {}, 2 * SECOND)
        versions.register("late", B, "run3", {}, 3 * SECOND)
        assert [(version.model, version.version) for version in versions.all()] == [
            ("late", "2"),
            ("fraud", "1"),
            ("late", "1"),
        ]
        assert [version.version for version in versions.all("late")] == ["2", "1"]
        assert versions.all("nobody") == []

    def test_what_is_no_digest_is_refused(self, versions: ModelVersions) -> None:
        with pytest.raises(Invalid, match="digest"):
            versions.register("late", "../../etc", "run1", {}, SECOND)

    def test_an_alias_moves_and_every_move_is_kept(self, versions: ModelVersions) -> None:
        versions.register("late", A, "run1", {}, SECOND)
        versions.register("late", B, "run2", {}, 2 * SECOND)
        up = AliasMove("late", "champion", None, "1", "ana", "first", 3 * SECOND)
        on = AliasMove("late", "champion", "1", "2", "ana", "better", 4 * SECOND)
        back = AliasMove("late", "champion", "2", "1", "ben", "rollback", 5 * SECOND)
        for move, named in ((up, "1"), (on, "2"), (back, "1")):
            versions.set_alias(move)
            assert versions.get("late", "champion").version == named
        assert versions.moves("late") == [back, on, up]
        assert versions.moves("late", "challenger") == []
        assert versions.get("late", "1").aliases == ("champion",)
        assert [version.aliases for version in versions.all("late")] == [(), ("champion",)]

    def test_a_version_has_several_aliases(self, versions: ModelVersions) -> None:
        versions.register("late", A, "run1", {}, SECOND)
        for alias in ("champion", "challenger"):
            versions.set_alias(AliasMove("late", alias, None, "1", "ana", "", SECOND))
        assert versions.get("late", "challenger").aliases == ("challenger", "champion")
        assert versions.moves("late", "challenger") == [AliasMove("late", "challenger", None, "1", "ana", "", SECOND)]

    def test_a_move_from_what_is_no_longer_so_is_refused(self, versions: ModelVersions) -> None:
        versions.register("late", A, "run1", {}, SECOND)
        versions.register("late", B, "run2", {}, SECOND)
        versions.set_alias(AliasMove("late", "champion", None, "1", "ana", "", SECOND))
        for old in (None, "2"):
            with pytest.raises(Conflict, match="names version 1 by now"):
                versions.set_alias(AliasMove("late", "champion", old, "2", "ben", "", SECOND))
        assert versions.get("late", "champion").version == "1"
        assert len(versions.moves("late")) == 1

    def test_of_moves_at_once_one_wins(self, versions: ModelVersions) -> None:
        for digest in (A, B):
            versions.register("late", digest, "run", {}, SECOND)

        def move(number: int) -> bool:
            try:
                versions.set_alias(AliasMove("late", "champion", None, str(1 + number % 2), f"p{number}", "", SECOND))
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            won = list(pool.map(move, range(8)))
        assert won.count(True) == 1
        (only,) = versions.moves("late")
        assert versions.get("late", "champion").version == only.new

    def test_the_unknown_is_not_found(self, versions: ModelVersions) -> None:
        versions.register("late", A, "run1", {}, SECOND)
        for model, reference in (("late", "champion"), ("late", "2"), ("fraud", "1")):
            with pytest.raises(NotFound, match=f"{model}@{reference}"):
                versions.get(model, reference)
        with pytest.raises(NotFound):
            versions.set_alias(AliasMove("late", "champion", None, "9", "ana", "", SECOND))
        assert versions.moves("late") == []

    def test_a_removed_version_is_gone_and_its_number_is_not_given_again(self, versions: ModelVersions) -> None:
        versions.register("late", A, "run1", {}, SECOND)
        versions.register("late", B, "run2", {}, 2 * SECOND)
        versions.remove("late", "2")
        versions.remove("late", "2")
        versions.remove("late", "9")
        with pytest.raises(NotFound):
            versions.get("late", "2")
        assert [version.version for version in versions.all("late")] == ["1"]
        assert versions.register("late", B, "run3", {}, 3 * SECOND).version == "3"
        with pytest.raises(NotFound):
            versions.set_alias(AliasMove("late", "champion", None, "2", "ana", "", SECOND))

    def test_a_version_that_an_alias_names_is_not_removed(self, versions: ModelVersions) -> None:
        versions.register("late", A, "run1", {}, SECOND)
        versions.register("late", B, "run2", {}, 2 * SECOND)
        versions.set_alias(AliasMove("late", "champion", None, "1", "ana", "", SECOND))
        with pytest.raises(Conflict, match="late:1 is named by champion"):
            versions.remove("late", "1")
        versions.set_alias(AliasMove("late", "champion", "1", "2", "ana", "", SECOND))
        versions.remove("late", "1")
        assert [version.version for version in versions.all("late")] == ["2"]
        assert [move.new for move in versions.moves("late")] == ["2", "1"]

    @pytest.mark.parametrize("alias", ["3", "v3", "latest", "", "a/b", "x' OR '1'='1"])
    def test_what_could_be_taken_for_a_number_is_no_alias(self, versions: ModelVersions, alias: str) -> None:
        versions.register("late", A, "run1", {}, SECOND)
        with pytest.raises(Invalid):
            versions.set_alias(AliasMove("late", alias, None, "1", "ana", "", SECOND))


class ApprovalsConformance:
    """The fixture `approvals` is an empty store."""

    def test_what_is_added_is_there_newest_first(self, approvals: Approvals) -> None:
        made = [
            Approval("late", "1", A, "ana", "looks good", SECOND),
            Approval("late", "1", A, "ben", "", 2 * SECOND),
            Approval("late", "2", B, "ana", "", 3 * SECOND),
            Approval("fraud", "1", B, "ana", "", 4 * SECOND),
        ]
        for approval in made:
            approvals.add(approval)
        assert approvals.of("late", "1") == [made[1], made[0]]
        assert approvals.of("late") == [made[2], made[1], made[0]]
        assert approvals.of("nobody") == []

    def test_nobody_approves_twice(self, approvals: Approvals) -> None:
        approvals.add(Approval("late", "1", A, "ana", "", SECOND))
        with pytest.raises(Conflict, match="ana has approved late:1"):
            approvals.add(Approval("late", "1", A, "ana", "again", 2 * SECOND))
        assert len(approvals.of("late")) == 1


class DeletionsConformance:
    """The fixture `deletions` is an empty store."""

    def test_a_mark_is_there_until_it_is_taken_back(self, deletions: Deletions) -> None:
        first = Deletion("late", "1", A, "ana", "old", SECOND)
        second = Deletion("late", "2", B, "ben", "", 2 * SECOND)
        deletions.mark(first)
        deletions.mark(second)
        assert deletions.all() == [first, second]
        with pytest.raises(Conflict, match="late:1 is marked"):
            deletions.mark(Deletion("late", "1", A, "ben", "", 3 * SECOND))
        assert deletions.unmark("late", "1")
        assert not deletions.unmark("late", "1")
        assert deletions.all() == [second]
        deletions.mark(first)
        assert deletions.all() == [first, second]

    def test_a_claimed_mark_is_not_taken_back(self, deletions: Deletions) -> None:
        mark = Deletion("late", "1", A, "ana", "old", SECOND)
        assert not deletions.claim("late", "1")
        deletions.mark(mark)
        assert deletions.claim("late", "1")
        assert deletions.claim("late", "1")
        assert not deletions.unmark("late", "1")
        assert [each.claimed for each in deletions.all()] == [True]
        with pytest.raises(Conflict, match="late:1 is marked"):
            deletions.mark(mark)
        deletions.settle("late", "1", carried_out=False)
        assert deletions.all() == [mark]
        deletions.claim("late", "1")
        deletions.settle("late", "1", carried_out=True)
        assert deletions.all() == []

    def test_either_it_is_claimed_or_it_is_taken_back(self, deletions: Deletions) -> None:
        for number in range(10):
            deletions.mark(Deletion("late", str(number), A, "ana", "", SECOND))
            with ThreadPoolExecutor(2) as pool:
                claimed = pool.submit(deletions.claim, "late", str(number))
                back = pool.submit(deletions.unmark, "late", str(number))
                assert claimed.result() != back.result()


class TrustedKeysConformance:
    """The fixture `trusted` is an empty store."""

    def test_a_key_is_trusted_until_it_is_not(self, trusted: TrustedKeys) -> None:
        staging = TrustedKey(b"s" * 32, "staging", "ana", SECOND)
        other = TrustedKey(b"o" * 32, "other", "ana", 2 * SECOND)
        trusted.add(staging)
        trusted.add(other)
        assert trusted.all() == [other, staging]
        for taken in (TrustedKey(b"n" * 32, "staging", "ben", SECOND), TrustedKey(b"s" * 32, "new", "ben", SECOND)):
            with pytest.raises(Conflict):
                trusted.add(taken)
        assert trusted.remove("staging")
        assert not trusted.remove("staging")
        assert trusted.all() == [other]


class BlobsConformance:
    """The fixture `blobs` is an empty store."""

    def test_what_is_put_comes_back(self, blobs: Blobs) -> None:
        files = {"model.onnx": bytes(range(256)), "manifest.json": b"", "signature": b"s"}
        blobs.put(A, files)
        assert dict(blobs.get(A)) == files

    def test_a_blob_never_changes(self, blobs: Blobs) -> None:
        blobs.put(A, {"x": b"1"})
        blobs.put(A, {"x": b"2", "y": b"3"})
        assert dict(blobs.get(A)) == {"x": b"1"}

    def test_put_at_once_is_there_once(self, blobs: Blobs) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: blobs.put(A, {"x": b"1" * 100_000, "y": b"2"}), range(16)))
        assert dict(blobs.get(A)) == {"x": b"1" * 100_000, "y": b"2"}
        assert blobs.all() == [A]

    def test_of_different_puts_at_once_one_is_there_whole(self, blobs: Blobs) -> None:
        made = [{"x": bytes([number]) * 10_000, f"y{number}": b"2"} for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda files: blobs.put(A, files), made))
        assert dict(blobs.get(A)) in made

    def test_all_and_delete(self, blobs: Blobs) -> None:
        assert blobs.all() == []
        blobs.put(B, {"x": b"1"})
        blobs.put(A, {"x": b"1"})
        assert sorted(blobs.all()) == [A, B]
        assert blobs.delete(A)
        assert not blobs.delete(A)
        assert blobs.all() == [B]
        with pytest.raises(NotFound):
            blobs.get(A)
        blobs.put(A, {"x": b"another"})
        assert dict(blobs.get(A)) == {"x": b"another"}

    def test_a_blob_is_as_old_as_its_last_put(self, blobs: Blobs) -> None:
        blobs.put(A, {"x": b"1"})
        (at,) = blobs.stored().values()
        assert not blobs.delete(A, stored_before=at)
        assert dict(blobs.get(A)) == {"x": b"1"}
        end = time.monotonic() + 30
        while blobs.stored()[A] == at and time.monotonic() < end:  # some stores' clocks have whole seconds
            blobs.put(A, {"x": b"1"})
        assert at < blobs.stored()[A]
        assert not blobs.delete(A, stored_before=at + 1)
        assert blobs.delete(A, stored_before=blobs.stored()[A] + 1)
        assert blobs.stored() == {}
        assert not blobs.delete(A, stored_before=at)

    def test_what_is_put_while_it_is_removed_is_there_afterwards(self, blobs: Blobs) -> None:
        """A removal of what is old never takes what somebody put after they had seen it old."""
        blobs.put(A, {"x": b"1"})
        for _ in range(5):
            with ThreadPoolExecutor(2) as pool:
                before = max(blobs.stored().values(), default=0)
                put = pool.submit(blobs.put, A, {"x": b"1"})
                gone = pool.submit(blobs.delete, A, stored_before=before + 1)
                put.result()
                gone.result()
            if not gone.result() or A in blobs.all():
                assert dict(blobs.get(A)) == {"x": b"1"}
            else:  # within one tick of the store's clock the put was not after
                blobs.put(A, {"x": b"1"})

    def test_sweeping_leaves_whole_blobs_alone(self, blobs: Blobs) -> None:
        blobs.put(A, {"x": b"1"})
        blobs.sweep(blobs.stored()[A] + 10 * SECOND)
        assert dict(blobs.get(A)) == {"x": b"1"}

    @pytest.mark.parametrize("digest", ["../x", "", "A" * 64, "a" * 63, f"{'a' * 63}/", "a" * 65, f"{'a' * 64}\n"])
    def test_a_digest_is_no_path(self, blobs: Blobs, digest: str) -> None:
        with pytest.raises(Invalid):
            blobs.put(digest, {"x": b"1"})
        with pytest.raises(Invalid):
            blobs.get(digest)
        with pytest.raises(Invalid):
            blobs.delete(digest)

    @pytest.mark.parametrize("name", ["../x", "", "/x", "a/b", ".x"])
    def test_a_file_is_no_path(self, blobs: Blobs, name: str) -> None:
        with pytest.raises(Invalid):
            blobs.put(A, {name: b"1"})
        assert blobs.all() == []


class RunSearchConformance:
    """The fixture `tracking` is an empty store, and `search` looks at the runs in it."""

    @pytest.fixture
    def runs(self, tracking: Tracking) -> list[str]:
        """Four runs, each a second after the one before."""
        ids = [tracking.start(model, {"n": str(at)}, at * SECOND) for at, model in enumerate(["a", "b", "a", "a"])]
        for at, (run_id, auc) in enumerate(zip(ids, (0.5, 0.9, math.nan, None), strict=True)):
            tracking.log(run_id, params={"depth": str(12 - at), "kind": "deep" if at else "Wide"})
            if auc is not None:
                tracking.log(run_id, metrics=[("auc", auc, 0, at * SECOND)])
        tracking.finish(ids[1], "FAILED", 9 * SECOND)
        return ids

    def test_an_empty_store_has_nothing(self, search: RunSearch) -> None:
        assert search.search(RunQuery()) == RunPage(())
        assert search.count(RunQuery()) == 0
        assert search.names(Kind.METRIC) == []
        assert search.history(["0" * 32], "auc").runs == {}
        with pytest.raises(NotFound, match="0" * 32):
            search.get(["0" * 32])

    def test_a_row_has_what_was_asked_for(self, search: RunSearch, runs: list[str]) -> None:
        columns = [
            Column(Kind.METRIC, "auc"),
            Column(Kind.PARAM, "depth"),
            Column(Kind.TAG, "n"),
            Column(Kind.TAG, "x"),
        ]
        page = search.search(RunQuery(limit=3), columns)
        assert [run.id for run in page.runs] == runs[:0:-1]
        failed = page.runs[2]
        assert (failed.model, failed.status, failed.started_at, failed.ended_at) == ("b", "FAILED", SECOND, 9 * SECOND)
        assert failed.duration == 8 * SECOND
        assert (dict(failed.metrics), dict(failed.params), dict(failed.tags)) == (
            {"auc": 0.9},
            {"depth": "11"},
            {"n": "1"},
        )
        assert math.isnan(page.runs[1].metrics["auc"])
        assert [run.id for run in search.search(RunQuery(limit=3, after=page.next)).runs] == runs[:1]

    def test_conditions_and_words(self, search: RunSearch, runs: list[str]) -> None:
        def found(*conditions: Condition, words: tuple[str, ...] = ()) -> list[str]:
            return [run.id for run in search.search(RunQuery(conditions, words)).runs]

        auc, depth, kind = Column(Kind.METRIC, "auc"), Column(Kind.PARAM, "depth"), Column(Kind.PARAM, "kind")
        assert found(Condition(auc, ">", 0.4)) == [runs[1], runs[0]]
        assert found(Condition(auc, "!=", 0.5)) == [runs[1]]
        assert found(Condition(auc, "is null")) == [runs[3]]
        assert found(Condition(depth, ">", 9.5)) == [runs[2], runs[1], runs[0]]
        assert found(Condition(depth, "=", "9"), Condition(kind, "=", "deep")) == [runs[3]]
        assert found(Condition(kind, "ilike", "w%")) == [runs[0]]
        assert found(Condition(Column(Kind.ATTRIBUTE, "status"), "in", ("FAILED", "KILLED"))) == [runs[1]]
        assert found(Condition(Column(Kind.ATTRIBUTE, "started"), "<=", SECOND)) == [runs[1], runs[0]]
        assert found(words=(runs[2][-12:].upper(),)) == [runs[2]]
        assert search.count(RunQuery((Condition(auc, ">", 0.4),))) == 2

    def test_orders(self, search: RunSearch, runs: list[str]) -> None:
        def found(column: Column, descending: bool) -> list[int]:
            page = search.search(RunQuery(order=Order(column, descending)))
            return [runs.index(run.id) for run in page.runs]

        assert found(Column(Kind.METRIC, "auc"), True) == [1, 0, 3, 2]
        assert found(Column(Kind.METRIC, "auc"), False) == [0, 1, 3, 2]
        assert found(Column(Kind.PARAM, "depth"), False) == [3, 2, 1, 0]
        assert found(Column(Kind.ATTRIBUTE, "duration"), False) == [1, 3, 2, 0]

    def test_a_page_is_of_its_search(self, search: RunSearch, runs: list[str]) -> None:
        page = search.search(RunQuery(limit=1))
        for other in (RunQuery(words=("a",), after=page.next), RunQuery(after="x"), RunQuery(after="bm90aGluZw")):
            with pytest.raises(Invalid, match="another search"):
                search.search(other)
        assert runs

    def test_names_that_begin_with_it_come_first(self, search: RunSearch, tracking: Tracking) -> None:
        run_id = tracking.start("a", {"of": "1"}, SECOND)
        tracking.log(run_id, metrics=[(name, 1.0, 0, SECOND) for name in ("val/loss", "loss", "Loss/b", "auc")])
        assert search.names(Kind.METRIC, "loss") == ["Loss/b", "loss", "val/loss"]
        assert search.names(Kind.METRIC, "loss", limit=1) == ["Loss/b"]
        assert "of" in search.names(Kind.TAG)

    def test_a_history_is_made_few_in_the_store(self, search: RunSearch, tracking: Tracking) -> None:
        one, other = tracking.start("a", {}, SECOND), tracking.start("a", {}, SECOND)
        tracking.log(one, metrics=[("loss", float(step % 10), step, SECOND) for step in range(100)])
        tracking.log(other, metrics=[("loss", 7.0, 95, SECOND), ("loss", math.nan, 99, SECOND)])
        few = search.history([one, other], "loss", points=10)
        assert (few.first, few.width) == (0, 10)
        assert few.runs[one] == tuple(Bucket(place, 0.0, 9.0, 4.5, 10) for place in range(10))
        assert few.runs[other] == (Bucket(9, 7.0, 7.0, 7.0, 1, 1),)
        assert len(search.history([one], "loss", points=100).runs[one]) == 100
        assert search.history([one], "loss", axis=Axis.TIME).runs[one] == (Bucket(0, 0.0, 9.0, 4.5, 100),)

    def test_a_line_is_a_few_of_the_values(self, search: RunSearch, tracking: Tracking) -> None:
        one, other = tracking.start("a", {}, SECOND), tracking.start("a", {}, SECOND)
        tracking.log(one, metrics=[("loss", float(step), step, SECOND) for step in range(100)])
        tracking.log(other, metrics=[("loss", 7.0, 95, SECOND)])
        assert search.lines([one, other], "loss", points=4) == {one: (0.0, 33.0, 66.0, 99.0)}
