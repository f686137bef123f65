"""Waivers, from the command to a promotion: who may give one, what it allows, how it ends, and where it shows; and the
gate on memory, which needs a project in a folder too.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.models import mlp
from kit.people import known
from mainspring.core.errors import Conflict, Denied, Invalid, NotFound
from mainspring.core.time import DAY, HOUR
from mainspring.delivery.verdicts import verdicts
from mainspring.operations.keys import create_key
from mainspring.operations.models import cards, curating, waiving
from mainspring.operations.models.serving_memory import serving_memory
from mainspring.operations.promote import promote
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.bundles import seal
from mainspring.registry.model import Bundle, Manifest, ModelVersion, TensorSpec, Waiver
from mainspring.registry.processes import local_user, process_tags
from mainspring.security.signing import SigningKey
from mainspring.training import gates

AUC, SIZE = "auc at least 0.9", "size at most 10 bytes"
THINGS = """
import mainspring as ms

customer = ms.Entity("customer", keys={"customer": ms.Int64})
orders = ms.Source("orders", schema={"customer": ms.Int64, "late": ms.Boolean, "size": ms.Float32}, event_time="at")


@ms.request_features
class Order:
    size = ms.col("size")


@ms.model(
    "late", observations=ms.Observations(orders, keys=[customer], at=ms.col("at")), features=[Order], label=orders.late,
    task="binary", gates=[ms.gates.at_least("auc", 0.9), ms.gates.size(10)GATES],
)
def train(data, run):
    pass
"""


def project_in(folder: Path, gates: str = "", **settings: Any) -> Project:
    """A project whose model fails both of its gates; runs and versions are in memory, all else on the disk."""
    folder.mkdir()
    (folder / "mainspring.toml").write_text(f'name = "{folder.name}"\nmodules = ["things"]\n')
    (folder / "things.py").write_text(THINGS.replace("GATES", gates))
    return open_project(load_settings(folder, overrides={"tracking": "memory://", **settings}, environment={}))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return project_in(tmp_path / "waived")


def registered(project: Project) -> ModelVersion:
    known(project, local_user())
    run_id = project.tracking.start("late", process_tags(), project.wall.now())
    x, y = TensorSpec("x", "FP32", (-1, 4)), TensorSpec("y", "FP32", (-1, 3))
    manifest = Manifest(
        model="late", task="tensors", flavour="onnx", inputs=(), outputs=("y",), tensors=(x,), output_tensors=(y,),
        run_id=run_id, dataset_commit="c", features_digest="f", code_version="v", created_at=0, metrics={"auc": 0.75},
    )  # fmt: skip
    bundle = seal(manifest, {"golden.json": b"{}", "model.onnx": mlp()}, project.signing_key)
    project.bundles.save(bundle)
    return project.versions.register("late", bundle.digest, run_id, {}, project.wall.now())


def test_a_waived_version_goes_live_and_everybody_sees_why(project: Project) -> None:
    registered(project)
    assert [each.passed for each in promote(project, "late").results] == [False, False]
    given = waiving.waive(project, "late:1", "AUC", reason="the label was late", until="7d")
    assert (given.gate, given.actor, given.until - given.at) == (AUC, local_user(), 7 * DAY)
    still = promote(project, "late")
    assert (still.promoted, [each.allows for each in still.results]) == (False, [True, False])
    waiving.waive(project, "late:1", SIZE, reason="a one-off", until="1h")
    promotion = promote(project, "late")
    assert promotion.promoted
    assert [each.passed for each in promotion.results] == [False, False]
    assert promotion.results[0].waived.startswith(f"{local_user()} until ")
    assert "not passed, waived by" in str(promotion.results[0])
    assert msgspec.to_builtins(promotion)["results"][0]["waived"].endswith(": the label was late")

    kept = project.evaluations.newest("late", "1", 9)
    assert [each.promoted for each in kept] == [True, False, False]
    assert kept[0].results == promotion.results

    details = [event.detail for event in project.audit.read() if event.action in ("promote", "waive")]
    assert sum("although" in detail and "waived by" in detail for detail in details) == 2
    assert any(AUC in detail and "the label was late" in detail for detail in details)
    assert [each.what for each in curating.history(project, "late")] == ["alias", "waiver", "waiver"]
    facts = {fact.value for fact in cards.card(project, "late:1").made if fact.name == "Waived gate"}
    assert {text.split(", by")[0] for text in facts} == {AUC, SIZE}
    assert [state for _, state in waiving.listed(project, "late")] == ["active", "active"]


def test_a_waiver_that_ended_or_expired_or_is_of_another_bundle_allows_nothing(project: Project) -> None:
    version = registered(project)
    now = project.wall.now()

    def added(**changes: Any) -> Waiver:
        made = Waiver("late", "1", version.digest, AUC, "ana", "why", now - HOUR, now + HOUR)
        made = replace(made, **changes)
        made = replace(made, signature=project.signing_key.sign(made.content()))
        project.waivers.add(made)
        return made

    def allowed() -> bool:
        return promote(project, "late").results[0].allows

    added(until=now - 1)
    added(digest="a" * 64)
    added(at=now + HOUR, until=now + 2 * HOUR)
    added(gate="auc at least 0.8")
    added(version="2")
    assert not allowed()
    good = added()
    assert allowed()
    ended = waiving.end_waiver(project, "late:1", "auc at least 0.9")
    assert (ended.ended_by, ended.gate) == (local_user(), good.gate)
    assert not allowed()
    with pytest.raises(NotFound, match="no waiver of"):
        waiving.end_waiver(project, "late:1", AUC)
    assert {state for _, state in waiving.listed(project, "late:1")} >= {"ended", "active"}


def test_a_part_of_a_gates_text_ends_the_waiver_that_still_counts(project: Project) -> None:
    registered(project)
    given = {"reason": "why", "until": "7d"}
    waiving.waive(project, "late:1", AUC, **given)
    waiving.waive(project, "late:1", SIZE, **given)
    with pytest.raises(Invalid, match="2 waivers match 'at'"):
        waiving.end_waiver(project, "late:1", "at")
    assert waiving.end_waiver(project, "late:1", "SIZE").gate == SIZE
    assert waiving.end_waiver(project, "late:1", "at").gate == AUC  # the other one has ended


def test_a_row_that_somebody_wrote_into_the_catalog_is_no_waiver(project: Project) -> None:
    version = registered(project)
    now = project.wall.now()
    forged = Waiver("late", "1", version.digest, AUC, "ana", "why", now - HOUR, now + HOUR)
    project.waivers.add(replace(forged, signature=SigningKey(b"x" * 32).sign(forged.content())))
    project.waivers.add(replace(forged, signature=b""))
    signed = project.signing_key.sign(replace(forged, until=now + 1).content())
    project.waivers.add(replace(forged, signature=signed))  # an end that was moved afterwards
    assert not promote(project, "late").results[0].allows
    assert [state for _, state in waiving.listed(project, "late:1")] == ["invalid"] * 3


def test_approvals_cannot_be_waived_and_the_author_waives_nothing_where_they_are_wanted(tmp_path: Path) -> None:
    for number, project in enumerate(
        [project_in(tmp_path / "a", approvals=1), project_in(tmp_path / "b", ", ms.gates.approved(by=1)")]
    ):
        registered(project)
        with pytest.raises(Denied, match=f"{local_user()} is the author of late:1"):
            waiving.waive(project, "late:1", AUC, reason="why", until="7d")
        if number:
            with pytest.raises(Invalid, match="'approved by 1' cannot be waived"):
                waiving.waive(project, "late:1", "approved", reason="why", until="7d")
        known(project, "local:carla")
        key = create_key(project, "ben", ["manage"], DAY, created_by="local:carla")
        for gate in (AUC, SIZE):
            waiving.waive(project, "late:1", gate, reason="why", until="7d", key=key)
        promotion = promote(project, "late")
        assert not promotion.promoted
        assert [(each.gate, each.allows) for each in promotion.results] == [
            (AUC, True), (SIZE, True), ("approved by 1", False),
        ]  # fmt: skip
        curating.approve(project, "late:1", key=key)
        assert promote(project, "late").promoted


def test_an_authors_waiver_counts_no_more_once_the_project_wants_approvals(tmp_path: Path) -> None:
    project = project_in(tmp_path / "a")
    registered(project)
    for gate in (AUC, SIZE):
        waiving.waive(project, "late:1", gate, reason="why", until="7d")
    assert [state for _, state in waiving.listed(project, "late:1")] == ["active"] * 2
    strict = replace(project.settings, approvals=1)
    later = open_project(strict)
    later.__dict__.update({name: project.__dict__[name] for name in ("tracking", "versions")})  # are in memory
    assert [each.waived for each in promote(later, "late").results] == ["", "", ""]
    assert [state for _, state in waiving.listed(later, "late:1")] == ["invalid"] * 2
    assert waiving.active(later, later.versions.get("late", "1")) == []


def test_memory_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    """The model is tiny; its runtime takes some tens of megabytes."""
    project = project_in(tmp_path / "here")
    document = {"inputs": {"x": [[0.1, 0.2, 0.3, 0.4]]}, "outputs": {"y": [[0.0, 0.0, 0.0]]}}
    bundle = project.bundles.load(registered(project).digest)
    with_rows = Bundle(bundle.digest, bundle.manifest, {**bundle.files, "golden.json": msgspec.json.encode(document)})
    few, many = (serving_memory(project, with_rows, rows) for rows in (1, 200_000))
    assert 2**20 < few < 2**30
    assert many > few + 2**20
    asked = [gates.memory(few // 2, rows=1), gates.memory(10 * few, rows=1)]
    load, memory = project.bundles.load, partial(serving_memory, project)
    results = verdicts(asked, with_rows, None, load, None, (), None, memory=memory)
    assert [each.passed for each in results] == [False, True]
    assert not any(each.passed for each in verdicts(asked, with_rows, None, load, None, (), None))
    broken = Bundle(bundle.digest, bundle.manifest, {**with_rows.files, "model.onnx": b"no model"})
    (result,) = verdicts(asked[:1], broken, None, load, None, (), None, memory=memory)
    assert "does not run in a process of its own" in result.note


def test_a_system_that_tells_no_memory_passes_no_gate_on_it(project: Project, tmp_path: Path) -> None:
    bundle = project.bundles.load(registered(project).digest)
    elsewhere = partial(serving_memory, project, status=tmp_path / "no-proc")
    (result,) = verdicts([gates.memory("100GB")], bundle, None, project.bundles.load, None, (), None, memory=elsewhere)
    assert (result.passed, result.value) == (False, None)
    assert "does not tell how much memory" in result.note


def test_what_is_not_a_waiver_is_refused(project: Project) -> None:
    registered(project)
    for gate, reason, until, what in (
        (AUC, " ", "7d", "needs a reason"),
        ("brier", "why", "7d", "No gates match 'brier'"),
        ("at", "why", "7d", "2 gates match 'at'"),
        ("", "why", "7d", "gates match ''"),
        (AUC, "why", "", "is not"),
        (AUC, "why", "tomorrow", "is not"),
        (AUC, "why", "0s", "cannot end"),
        (AUC, "why", "91d", "cannot end"),
        (AUC, "why", "2001-01-01", "cannot end"),
    ):
        with pytest.raises(Invalid, match=what):
            waiving.waive(project, "late:1", gate, reason=reason, until=until)
    with pytest.raises(NotFound):
        waiving.waive(project, "late:9", AUC, reason="why", until="7d")
    with pytest.raises(Denied):
        waiving.waive(project, "late:1", AUC, reason="why", until="7d", key="msp_of_nobody")
    curating.delete(project, "late:1")
    with pytest.raises(Conflict, match="marked for deletion"):
        waiving.waive(project, "late:1", AUC, reason="why", until="7d")
    assert project.waivers.of("late") == []
