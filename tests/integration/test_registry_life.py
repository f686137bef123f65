"""What people do with versions, through the application: approve, delete, collect, carry to another installation."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.model_signers import write_signer
from kit.models import mlp
from kit.people import known
from mainspring.core.errors import Conflict, Corrupt, Denied, Invalid, NotFound
from mainspring.core.settings import Url
from mainspring.core.time import DAY, HOUR, ManualClock, SystemClock
from mainspring.ledger.conformance import prediction
from mainspring.operations.access import add_account
from mainspring.operations.keys import create_key
from mainspring.operations.models import curating, transferring
from mainspring.operations.models.adding import add_file
from mainspring.operations.models.signing import sign_version, verify_model
from mainspring.operations.promote import promote
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry import oms
from mainspring.registry.bundles import seal, sha256
from mainspring.registry.lineage import PARENT
from mainspring.registry.model import AliasMove, Approval, Graph, Manifest, ModelVersion, Node, TensorSpec
from mainspring.registry.processes import local_user, process_tags
from mainspring.security.model import Grant, Kind, Role

_PEOPLE = (f"person-{number}" for number in count())
X, Y = TensorSpec("x", "FP32", (-1, 2)), TensorSpec("y", "FP32", (-1, 2))
LATER = SystemClock().now() + 30 * DAY


def project_in(folder: Path, **settings: Any) -> Project:
    """A project that declares no model; its runs and versions are in memory, all else on the disk."""
    folder.mkdir()
    (folder / "mainspring.toml").write_text(f'name = "{folder.name}"\nmodules = ["things"]\n')
    things = 'import mainspring as ms\n\ncustomer = ms.Entity("customer", keys={"customer": ms.Int64})\n'
    (folder / "things.py").write_text(things)
    return open_project(load_settings(folder, overrides={"tracking": "memory://", **settings}, environment={}))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return project_in(tmp_path / "here")


def registered(project: Project, model: str = "late", number: int = 0, **changes: Any) -> ModelVersion:
    """Register a version as `mainspring models add` does, without the trial."""
    tags = changes.pop("tags", {})
    known(project, local_user())
    run_id = project.tracking.start(model, process_tags(), project.wall.now())
    project.tracking.log(run_id, params={"depth": "3"}, metrics=[("auc", 0.75, 0, project.wall.now())])
    manifest = Manifest(
        **{
            "model": model, "task": "tensors", "flavour": "onnx", "inputs": (), "outputs": ("y",), "tensors": (X,),
            "output_tensors": (Y,), "run_id": run_id, "dataset_commit": "c1", "features_digest": "f1",
            "code_version": "abc", "created_at": number, "metrics": {"auc": 0.75}, **changes,
        }
    )  # fmt: skip
    files = {"golden.json": b"{}"} if manifest.graph else {"golden.json": b"{}", "model.onnx": mlp()}
    bundle = seal(manifest, files, project.signing_key)
    project.bundles.save(bundle)
    project.tracking.finish(run_id, "FINISHED", project.wall.now())
    return project.versions.register(model, bundle.digest, run_id, tags, project.wall.now())


def graph_of(project: Project, member: ModelVersion) -> ModelVersion:
    graph = Graph((Node(name="one", inputs={"x": "x"}, bundle=member.digest),), {"y": "one.y"})
    return registered(project, "pair", flavour="graph", graph=graph)


def actions(project: Project) -> list[str]:
    return [event.action for event in project.audit.read()]


def name_of(version: ModelVersion) -> str:
    return f"{version.model}:{version.version}"


def manager(project: Project, *scopes: str) -> str:
    maker = f"local:{next(_PEOPLE)}"
    known(project, maker)
    return create_key(project, "ben", scopes or ("manage",), DAY, created_by=maker)


# Approvals


def test_a_key_that_the_author_made_approves_nothing_of_theirs(tmp_path: Path) -> None:
    project = project_in(tmp_path / "here", approvals=2)
    version = registered(project)
    own = create_key(project, "ben", ["manage"], DAY)
    with pytest.raises(Denied, match=r"key:.*:ben is the author of late:1, as far as is known"):
        curating.approve(project, "late:1", key=own)
    unknown = create_key(project, "from before", ["manage"], DAY, created_by="")
    with pytest.raises(Denied, match=r"key:.*:from before was made by nobody who is known"):
        curating.approve(project, "late:1", key=unknown)

    known(project, "local:carla", "local:dan")
    # Approvals that were given before keys said who made them, and two keys of one person.
    for token in (
        own,
        unknown,
        *(create_key(project, "carla", ["manage"], DAY, created_by="local:carla") for _ in "ab"),
    ):
        approver = f"key:{token.split('_')[1]}:someone"
        project.approvals.add(Approval("late", "1", version.digest, approver, "", 0))
    refused = promote(project, "late")
    assert not refused.promoted
    assert refused.results[0].short_by == 1.0

    curating.approve(project, "late:1", key=create_key(project, "dan", ["manage"], DAY, created_by="local:dan"))
    assert promote(project, "late").promoted


def test_an_approver_is_the_account_however_it_comes(tmp_path: Path) -> None:
    project = project_in(tmp_path / "here", approvals=2)
    registered(project)
    accounts = [
        add_account(project, Kind.USER, name, issuer="https://id.example", subject=name) for name in ("Ana", "Ben")
    ]
    for account in accounts:
        project.accounts.grant(Grant(Kind.USER, account.id, Role.APPROVER))
    ana, ben = accounts
    for _ in "ab":
        key = create_key(project, "ana", ["manage"], DAY, owner=ana.id, created_by=f"user:{ana.id}")
        curating.approve(project, "late:1", key=key)
    curating.approve(project, "late:1", by=curating.approver_of(project.authenticator.user(ana.id)))
    refused = promote(project, "late")
    assert not refused.promoted
    assert refused.results[0].short_by == 1.0
    project.accounts.remove(ana.id)
    assert promote(project, "late").results[0].short_by == 1.0

    given = curating.approve(project, "late:1", by=curating.approver_of(project.authenticator.user(ben.id)))
    assert given.approver == f"user:{ben.id}"
    assert promote(project, "late").promoted


def test_promotion_waits_for_somebody_else(tmp_path: Path) -> None:
    project = project_in(tmp_path / "here", approvals=1)
    version = registered(project)
    refused = promote(project, "late")
    assert not refused.promoted
    (result,) = refused.results
    assert (result.gate, result.short_by, result.passed) == ("approved by 1", 1.0, False)
    assert "mainspring models approve late:1" in str(result)

    with pytest.raises(Denied, match=f"{local_user()} is the author of late:1"):
        curating.approve(project, "late:1")
    with pytest.raises(Denied, match=r"may not model\.approve"):
        curating.approve(project, "late:1", key=manager(project, "predict", "view"))
    with pytest.raises(Denied):
        curating.approve(project, "late:1", key="msp_of_nobody")
    assert project.approvals.of("late") == []

    key = manager(project)
    given = curating.approve(project, "late:1", key=key, reason="I looked")
    assert given.approver.endswith(":ben")
    with pytest.raises(Conflict, match="has already approved late:1"):
        curating.approve(project, "late:1", key=key)
    assert promote(project, "late").promoted
    assert project.versions.get("late", "champion").version == version.version
    told = [each for each in actions(project) if not each.startswith("keys")]
    assert told == ["promote", "promote", "approve", "promote"]  # refused, approved, the gate's number, the move
    assert [each.what for each in curating.history(project, "late")] == ["alias", "approval"]
    assert [each.reason for each in curating.history(project, "late", "champion")] == ["promote"]


def test_an_approval_that_is_withdrawn_lets_nothing_live(tmp_path: Path) -> None:
    project = project_in(tmp_path / "here", approvals=1)
    registered(project, number=1)
    registered(project, number=2)
    ben = manager(project)
    for name in ("late:1", "late:2"):
        given = curating.approve(project, name, key=ben, reason="I looked")
    assert promote(project, "late", "1").promoted

    with pytest.raises(NotFound, match=rf"no approval of late:2 by {local_user()}"):
        curating.withdraw(project, "late:2")
    with pytest.raises(Denied, match=r"may not model\.approve"):
        curating.withdraw(project, "late:2", key=manager(project, "predict", "view"))
    assert [each.version for each in project.approvals.of("late")] == ["2", "1"]

    done = curating.withdraw(project, "late:2", key=ben, reason="the holdout leaks")
    assert (done.approval, done.actor, done.reason) == (given, given.approver, "the holdout leaks")
    refused = promote(project, "late", "2")
    assert not refused.promoted
    assert "approved by nobody" in str(refused.results[0])
    assert project.versions.get("late", "champion").version == "1"
    with pytest.raises(NotFound, match="no approval of late:2"):
        curating.withdraw(project, "late:2", key=ben)

    shown = curating.show(project, "late:2")
    assert (shown.approvals, shown.withdrawn) == ([], [done])
    happened = [(each.what, each.actor, each.reason) for each in curating.history(project, "late")]
    assert ("withdrawal", given.approver, "the holdout leaks") in happened
    assert happened.count(("approval", given.approver, "I looked")) == 2
    (event,) = [event for event in project.audit.read() if event.action == "withdraw"]
    assert (event.actor, event.resource) == (given.approver, "model/late")
    assert event.detail.endswith(f"the approval of {given.approver}: the holdout leaks")

    curating.approve(project, "late:2", key=ben, reason="the holdout was right")
    assert promote(project, "late", "2").promoted


def test_anothers_approval_can_be_withdrawn_and_what_is_live_stays(tmp_path: Path) -> None:
    project = project_in(tmp_path / "here", approvals=1)
    registered(project)
    given = curating.approve(project, "late:1", key=manager(project))
    assert promote(project, "late").promoted
    done = curating.withdraw(project, "late@champion", approver=given.approver, reason="an alarm at night")
    assert (done.actor, done.approval.approver) == (local_user(), given.approver)
    assert project.versions.get("late", "champion").version == "1"
    assert promote(project, "late").promoted  # it is champion already, so nothing is judged


def test_an_approval_is_of_one_version(tmp_path: Path) -> None:
    project = project_in(tmp_path / "here", approvals=2)
    registered(project, number=1)
    registered(project, number=2)
    curating.approve(project, "late:1", key=manager(project))
    curating.approve(project, "late:2", key=manager(project))
    curating.approve(project, "late:2", key=manager(project))
    assert not promote(project, "late", "1").promoted
    assert promote(project, "late", "2").promoted


def test_what_nobody_is_known_to_have_made_is_not_approved(project: Project) -> None:
    version = registered(project)
    other = project.versions.register("late", "b" * 64, "no-such-run", {}, project.wall.now())
    assert curating.authors(project, version) == (local_user(),)
    with pytest.raises(Denied, match="The author of late:2 is unknown"):
        curating.approve(project, name_of(other), key=manager(project))


# Lineage


def test_a_version_shows_where_it_is_from(project: Project) -> None:
    first = registered(project, number=1)
    second = registered(project, number=2, tags={PARENT: first.digest})
    pair = graph_of(project, second)
    lineage = curating.show(project, "late:2").lineage
    assert (lineage.run_id, lineage.run_status) == (second.run_id, "FINISHED")
    assert (lineage.dataset_commit, lineage.features_digest, lineage.code_version) == ("c1", "f1", "abc")
    assert lineage.authors == (local_user(),)
    assert [(each.role, each.version) for each in lineage.ancestors] == [("parent", "late:1")]
    nodes = curating.show(project, "pair").lineage.ancestors
    assert [(each.role, each.version, each.digest) for each in nodes] == [("node one", "late:2", second.digest)]
    assert curating.find(project, "late").version == "2"
    project.versions.set_alias(AliasMove("late", "champion", None, "1", "ana", "", project.wall.now()))
    assert curating.find(project, "late").version == curating.find(project, "late@champion").version == "1"
    assert curating.find(project, pair.model) == pair


def test_a_file_names_the_version_that_it_was_made_from(project: Project, tmp_path: Path) -> None:
    first = registered(project)
    (tmp_path / "tuned.onnx").write_bytes(mlp())
    with pytest.raises(NotFound):
        add_file(project, "tuned", tmp_path / "tuned.onnx", parent="late:9")
    added = add_file(project, "tuned", tmp_path / "tuned.onnx", parent="late:1")
    (parent,) = curating.show(project, "tuned").lineage.ancestors
    assert (parent.role, parent.version, parent.digest) == ("parent", "late:1", first.digest)
    assert project.bundles.load(added.digest).manifest.extra[PARENT] == first.digest  # under the signature
    curating.delete(project, "late:1")
    project.wall = ManualClock(LATER)
    assert curating.garbage(project, grace_us=DAY).bundles == []


def test_a_file_has_to_be_signed_where_the_profile_says_so(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(mlp())
    for name in ("vendor", "other"):
        write_signer(tmp_path, name)
    project.settings = replace(project.settings, models_signed_by=(tmp_path / "vendor.pub.pem",))
    with pytest.raises(Denied, match="cannot be read"):
        add_file(project, "network", path)
    beside = tmp_path / "network.onnx.sig"
    digest = sha256(path.read_bytes())
    for signer, files, error in (
        ("other", {oms.ONLY: digest}, Denied),
        ("vendor", {oms.ONLY: "0" * 64}, Corrupt),
        ("vendor", {"elsewhere.onnx": digest}, Corrupt),
    ):
        beside.write_bytes(oms.sign("network", files, oms.read_signer(tmp_path / f"{signer}.pem")))
        with pytest.raises(error):
            add_file(project, "network", path)
    assert project.versions.all() == []
    vendor = oms.read_signer(tmp_path / "vendor.pem")
    beside.write_bytes(oms.sign("network", {oms.ONLY: digest}, vendor))
    with pytest.raises(Denied):
        add_file(project, "network", path, signed_by=tmp_path / "other.pub.pem")  # an option weakens no profile
    added = add_file(project, "network", path)
    assert project.bundles.load(added.digest).manifest.extra["signer"] == vendor.name
    beside.unlink()
    (tmp_path / "model.sig").write_bytes(oms.sign("models", {path.name: digest, "README": "1" * 64}, vendor))
    assert add_file(project, "network", path).version == added.version


@pytest.mark.parametrize("reference", ["late:", ":1", "late:x", "late:-1", "late:1:2", "late@", "late:²", "la te:1"])
def test_a_badly_named_version_is_refused(project: Project, reference: str) -> None:
    registered(project)
    with pytest.raises((Invalid, NotFound)) as refused:
        curating.find(project, reference)
    assert refused.value.fix


# Deletion


def test_a_marked_version_goes_after_its_grace(project: Project) -> None:
    first, second = registered(project, number=1), registered(project, number=2)
    mark = curating.delete(project, name_of(first), reason="too old")
    assert curating.show(project, "late:1").deletion == mark
    with pytest.raises(Conflict, match="marked"):
        promote(project, "late", "1")
    with pytest.raises(Conflict, match="marked"):
        curating.approve(project, "late:1", key=manager(project))
    assert curating.garbage(project, grace_us=DAY).versions == []
    curating.restore(project, "late:1")
    with pytest.raises(Conflict, match="not marked"):
        curating.restore(project, "late:1")
    curating.delete(project, "late:1")

    project.wall = ManualClock(LATER)
    planned = curating.garbage(project, grace_us=DAY, dry_run=True)
    assert (len(planned.versions), planned.bundles) == (1, [first.digest])
    assert len(project.versions.all()) == 2
    done = curating.garbage(project, grace_us=DAY)
    assert (len(done.versions), done.bundles) == (1, [first.digest])
    assert project.versions.all() == [second]
    assert project.blobs.all() == [second.digest]
    assert actions(project)[:4] == ["collect-garbage", "remove", "remove", "collect-garbage.begun"]
    assert project.deletions.all() == []


def test_what_something_leads_to_stays(project: Project) -> None:
    node, alone, parent, named = (registered(project, number=number) for number in range(4))
    graph_of(project, node)
    registered(project, number=9, tags={PARENT: parent.digest})
    for version in (node, alone, parent, named):
        curating.delete(project, name_of(version))
    project.versions.set_alias(AliasMove("late", "shadow", None, named.version, "ana", "", project.wall.now()))
    project.wall = ManualClock(LATER)
    done = curating.garbage(project, grace_us=DAY)
    assert [mark.version for mark in done.versions] == [alone.version]
    assert {mark.version: why.partition(",")[0] for mark, why in done.kept} == {
        node.version: "a graph",
        parent.version: "the tag parent of late:5",
        named.version: "the alias late@shadow",
    }
    with pytest.raises(Conflict, match="the alias shadow"):
        curating.delete(project, name_of(named))


def test_a_bundle_that_answered_stays(project: Project, tmp_path: Path) -> None:
    version = registered(project)
    project.prediction_log.append([msgspec.structs.replace(prediction(1), digest=version.digest)])
    curating.delete(project, name_of(version))
    project.wall = ManualClock(LATER)
    done = curating.garbage(project, grace_us=DAY)
    assert [why for _, why in done.kept] == ["logged predictions"]
    assert project.blobs.all() == [version.digest]


def test_what_was_stored_and_never_registered_goes(project: Project) -> None:
    version = registered(project)
    project.blobs.put("a" * 64, {"x": b"of a killed training"})
    assert curating.garbage(project, grace_us=HOUR).bundles == []
    project.wall = ManualClock(LATER)
    assert curating.garbage(project, grace_us=HOUR).bundles == ["a" * 64]
    assert project.blobs.all() == [version.digest]
    with pytest.raises(Invalid, match="too short"):
        curating.garbage(project, grace_us=HOUR - 1)


def test_nothing_is_removed_while_a_bundle_that_is_needed_cannot_be_read(project: Project) -> None:
    version = registered(project)
    project.blobs.put("a" * 64, {"x": b"garbage"})
    path = project.settings.blobs.path / version.digest / "golden.json"
    path.write_bytes(b"[]")
    project.wall = ManualClock(LATER)
    with pytest.raises(Corrupt, match=r"golden\.json"):
        curating.garbage(project, grace_us=DAY)
    assert len(project.blobs.all()) == 2


# Between installations


def test_a_version_moves_with_its_nodes_and_its_lineage(project: Project, tmp_path: Path) -> None:
    member = registered(project)
    pair = graph_of(project, member)
    out = transferring.export_version(project, name_of(pair), tmp_path / "pair.tar")
    assert out.bundles == 2
    assert (tmp_path / "pair.tar").stat().st_mode & 0o077 == 0
    with pytest.raises(Conflict, match="already"):
        transferring.export_version(project, name_of(pair), tmp_path / "pair.tar")

    there = project_in(tmp_path / "there")
    with pytest.raises(Denied, match=project.signing_key.public.hex()):
        transferring.import_version(there, tmp_path / "pair.tar")
    assert (there.blobs.all(), there.versions.all()) == ([], [])
    for wrong in ("", "zz", "00" * 31, f"{'00' * 32} "):
        if wrong.strip() != "00" * 32:
            with pytest.raises(Invalid, match="public key"):
                transferring.trust(there, "here", wrong)
    transferring.trust(there, "here", project.signing_key.public.hex())
    done = transferring.import_version(there, tmp_path / "pair.tar")
    assert (done.model, done.version, done.digest, done.key, done.new) == ("pair", "1", pair.digest, "here", True)
    again = transferring.import_version(there, tmp_path / "pair.tar")
    assert (again.version, again.new) == ("1", False)
    assert len(there.tracking.search()) == 1

    shown = curating.show(there, "pair").lineage
    assert (shown.dataset_commit, shown.code_version) == ("c1", "abc")
    assert (shown.tags["imported.version"], shown.tags["imported.run"]) == ("pair:1", pair.run_id)
    run = there.tracking.get(shown.run_id)
    assert (dict(run.params), dict(run.metrics), run.tags["imported.run"]) == (
        {"depth": "3"}, {"auc": 0.75}, pair.run_id)  # fmt: skip
    assert there.bundles.load(member.digest).files == project.bundles.load(member.digest).files
    with pytest.raises(Corrupt, match="signature"):  # what is here has this installation's signature
        project.bundles.save(there.bundles.load(member.digest))
    assert actions(there)[:3] == ["import", "import.begun", "trust"]

    transferring.forget(there, "here")
    with pytest.raises(Denied):
        transferring.import_version(there, tmp_path / "pair.tar")
    there.bundles.load(pair.digest)


def test_a_signed_folder_has_a_version_with_its_nodes(project: Project, tmp_path: Path) -> None:
    pair = graph_of(project, registered(project))
    write_signer(tmp_path)
    folder, trusted = tmp_path / "published" / "pair", tmp_path / "signer.pub.pem"
    done = sign_version(project, name_of(pair), folder, oms.read_signer(tmp_path / "signer.pem"))
    assert "export" in actions(project)
    assert folder.stat().st_mode & 0o077 == 0
    found = verify_model(folder, trusted)
    assert (found.signer, found.files, found.ignored) == (done.signer, done.files, ("model.sig",))
    below = {path.parent.relative_to(folder).parts[:1] for path in folder.rglob("manifest.json")}
    assert below == {(), ("nodes",)}
    assert sha256((folder / "manifest.json").read_bytes()) == pair.digest
    assert verify_model(folder / "manifest.json", trusted).signer == done.signer
    with pytest.raises(Conflict, match="exists"):
        sign_version(project, name_of(pair), folder, oms.read_signer(tmp_path / "signer.pem"))
    next(folder.glob("nodes/*/golden.json")).write_bytes(b"[]")
    with pytest.raises(Corrupt, match=r"nodes/.*golden\.json"):
        verify_model(folder, trusted)
    assert [each.name for each in folder.parent.iterdir()] == ["pair"]


def test_an_import_of_what_is_marked_is_refused(project: Project, tmp_path: Path) -> None:
    version = registered(project)
    transferring.export_version(project, "late:1", tmp_path / "late.tar")
    curating.delete(project, "late:1")
    with pytest.raises(Conflict, match="models restore late:1"):
        transferring.import_version(project, tmp_path / "late.tar")
    project.wall = ManualClock(LATER)
    curating.garbage(project, grace_us=DAY)
    assert project.blobs.all() == []
    assert transferring.import_version(project, tmp_path / "late.tar").version == "2"
    assert curating.garbage(project, grace_us=DAY).bundles == []
    assert project.blobs.all() == [version.digest]


def test_a_registry_lives_on_s3(tmp_path: Path, s3_url: Url) -> None:
    project = project_in(tmp_path / "here", blobs=s3_url.text)
    first, second = registered(project, number=1), registered(project, number=2)
    assert project.blobs.all() == sorted([first.digest, second.digest])
    curating.delete(project, "late:1")
    project.wall = ManualClock(LATER)
    assert curating.garbage(project, grace_us=DAY).bundles == [first.digest]
    assert project.bundles.load(second.digest).manifest.model == "late"
    assert not (project.settings.state / "bundles").exists()
