"""Conformance suite of tracking stores."""

from __future__ import annotations

import math
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.time import SECOND
from mainspring.registry.ports import Tracking
from mainspring.registry.runs import NAME, NOTE, PARENT


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
        tracking.log(run_id, metrics=entries[:700])  # a repeated flush
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

    def test_a_run_is_renamed_and_noted(self, tracking: Tracking) -> None:
        run_id = tracking.start("late", {NAME: "fold 1"}, SECOND)
        tracking.log(run_id, tags={NAME: "the best", NOTE: "look at the outliers"})
        assert dict(tracking.get(run_id).tags) == {NAME: "the best", NOTE: "look at the outliers"}

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
        with tracking.artefact_file(run_id, "environment.json") as path:
            assert (path.read_bytes(), path.suffix) == (b"\x00\xff\n", ".json")

    def test_a_deleted_artefact_is_gone(self, tracking: Tracking) -> None:
        run_id = tracking.start("late", {}, SECOND)
        for name in ("plots/roc.png", "plots/pr.png"):
            tracking.log_artefact(run_id, name, b"png")
        tracking.delete_artefact(run_id, "plots/roc.png")
        assert tracking.artefacts(run_id) == {"plots/pr.png": 3}
        for name in ("plots/roc.png", "plots/other.png"):
            with pytest.raises(NotFound):
                tracking.delete_artefact(run_id, name)
            with pytest.raises(NotFound), tracking.artefact_file(run_id, name):
                pass

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
