"""A report of evidence says what holds in this installation, and is signed whole."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.console.flights import Project, populated
from mainspring.cli.commands.evidence import FRAMEWORKS
from mainspring.core import sandbox
from mainspring.core.errors import Corrupt, Invalid, NotFound
from mainspring.core.sandbox import Policy
from mainspring.core.settings import Address, Url
from mainspring.core.time import DAY
from mainspring.features.model import EntityState
from mainspring.governance import bom
from mainspring.governance.evidence import Report, State, framework, frameworks, state_of
from mainspring.governance.evidence_page import page
from mainspring.operations.auditing import audit
from mainspring.operations.evidence.measures import measured, names
from mainspring.operations.evidence.reporting import report, signed, write_report
from mainspring.security import envelopes, signing
from mainspring.security.model import UserSession
from mainspring.security.signing import SigningKey, check_signed_text


@pytest.fixture(scope="module")
def project() -> Project:
    return populated()


@pytest.fixture(scope="module")
def gdpr(project: Project) -> Report:
    return report(project, "gdpr")


def test_a_report_says_of_every_control_how_it_stands_and_changes_nothing(project: Project) -> None:
    before = project.audit.read(), project.routes.revision(), project.versions.all()
    everything = measured(project, names())
    assert (project.audit.read(), project.routes.revision(), project.versions.all()) == before
    assert all(each.found.endswith(".") for each in everything.values())
    assert [each.found for each in everything.values() if each.state is State.FAILS] == []
    for name in frameworks():
        of_it = framework(name)
        found = Report(of_it, "late", "local", "00", "0", 0, everything)
        assert sum(found.counts.values()) == len(of_it.controls)


def test_the_command_names_every_framework(project: Project) -> None:
    assert frameworks() == FRAMEWORKS
    with pytest.raises(NotFound, match="gdpr"):
        report(project, "../gdpr")


def test_the_same_state_at_the_same_instant_is_the_same_report(project: Project, gdpr: Report) -> None:
    other = report(project, "gdpr")
    assert signed(project, gdpr) == signed(project, other)
    assert page(gdpr, project.signing_key) == page(other, project.signing_key)


def of(project: Project, name: str, **changes: Any) -> tuple[State, str]:
    """Return a measure's state with some settings changed."""
    kept = project.settings
    project.settings = replace(kept, **changes)
    try:
        found = measured(project, (name,))[name]
    finally:
        project.settings = kept
    return found.state, found.found


SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # a measure -> with what it is off, with what it holds
    "retention": ({"keep_predictions_us": None}, {"keep_predictions_us": 90 * DAY}),
    "approvals": ({"approvals": 0}, {"approvals": 1}),
    "encryption-of-models": ({"blobs_encrypted": False}, {"blobs_encrypted": True}),
    "encryption-of-personal-columns": ({"pii_encrypted": False}, {"pii_encrypted": True}),
    "encryption-of-features": ({"online_encrypted": False}, {}),
    "encryption-in-transit": ({"gateway": Address("192.0.2.1", 80)}, {"gateway": Address("127.0.0.1", 80)}),
    "central-sign-in": ({"sign_in": None}, {}),
    "audit-anchors": ({"audit_anchors": ()}, {"audit_anchors": (Url("file:///elsewhere"),)}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_what_the_measure_says_it_is(project: Project, name: str) -> None:
    off, on = SETTINGS[name]
    assert of(project, name, **off)[0] is State.OFF
    if on:
        assert of(project, name, **on)[0] is State.HOLDS


def test_a_data_key_of_sessions_says_nothing_of_personal_values_and_tokens_have_to_be_envelopes() -> None:
    project = populated()
    sessions = envelopes.seal(project.data_keys.newest("sessions"), "sessions", "1", b"{}")
    assert of(project, "encryption-of-personal-values")[0] is State.IDLE
    project.data_keys.newest("predictions")
    assert of(project, "encryption-of-personal-values")[0] is State.PARTLY
    project.user_sessions.add(UserSession("1", "ana", 1, 2**60, 1, sessions), 1)
    assert of(project, "secrets-of-the-catalog")[0] is State.HOLDS
    project.user_sessions.add(UserSession("2", "ana", 1, 2**60, 1, b"{}"), 1)
    assert of(project, "secrets-of-the-catalog")[0] is State.FAILS


def test_states_are_encrypted_where_none_is_left_in_clear() -> None:
    project = Project()
    project.stored_online.write("sealed.v", [(b"name", EntityState(1, b"envelope"))])
    assert of(project, "encryption-of-features", online_encrypted=True)[0] is State.HOLDS
    project.stored_online.write("v", [(b"ana", EntityState(1, b"clear"))])
    assert of(project, "encryption-of-features", online_encrypted=True)[0] is State.PARTLY


def test_isolation_is_as_the_setting_and_the_kernel_allow(project: Project) -> None:
    assert of(project, "isolation", isolation=Policy(sandbox.OFF))[0] is State.OFF
    whole = not sandbox.ALL - sandbox.available()
    required = of(project, "isolation", isolation=Policy(sandbox.REQUIRED))[0]
    assert required is (State.HOLDS if whole else State.FAILS)


def test_a_damaged_log_and_a_damaged_bundle_fail() -> None:
    project = populated()
    vars(project)["bundles"] = Refusing()
    assert of(project, "signed-models") == (State.FAILS, "The bundle was changed.")
    audit(project, "tidy", "project")
    vars(project)["signing_key"] = SigningKey(b"x" * 32)  # another than the one that signed the heads
    assert of(project, "audit-log")[0] is State.FAILS


class Refusing:
    def load(self, digest: str) -> Any:
        raise Corrupt("The bundle was changed.", fix="restore it.")


CHANGES: list[Callable[[bytes], bytes]] = [
    lambda content: content[:-1],
    lambda content: content + b"\n",
    lambda content: content.replace(b"off", b"in force", 1),
    lambda content: content.replace(b"<!doctype", b"<!Doctype"),
    lambda content: b"<p>in force</p>" + content,
    lambda content: content.replace(b" -->\n", b"== -->\n"),
    lambda content: content.rpartition(b"<!--")[0],
    lambda _: b"",
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_page_is_found(project: Project, gdpr: Report, change: Callable[[bytes], bytes]) -> None:
    content = page(gdpr, project.signing_key).encode()
    check_signed_text(content, project.signing_key.public)
    with pytest.raises(Corrupt):
        check_signed_text(change(content), project.signing_key.public)
    with pytest.raises(Corrupt):
        check_signed_text(content, SigningKey(b"x" * 32).public)


def test_a_changed_document_is_found(project: Project, gdpr: Report) -> None:
    document = signed(project, gdpr)
    signature = dict(document["signature"])
    value = base64.urlsafe_b64decode(signature.pop("value") + "==")
    content = bom.canonical({**document, "signature": signature})
    signing.verify(bytes.fromhex(document["installation"]), value, content)
    with pytest.raises(Corrupt):
        signing.verify(project.signing_key.public, value, content.replace(b"partly", b"in force", 1))


def test_files_are_written_by_their_suffix(project: Project, gdpr: Report, tmp_path: Path) -> None:
    write_report(project, gdpr, tmp_path / "a.html")
    write_report(project, gdpr, tmp_path / "a.json")
    check_signed_text((tmp_path / "a.html").read_bytes(), project.signing_key.public)
    assert msgspec.json.decode((tmp_path / "a.json").read_bytes()) == signed(project, gdpr)
    with pytest.raises(Invalid, match=r"a\.pdf"):
        write_report(project, gdpr, tmp_path / "a.pdf")


def test_what_was_found_is_text(project: Project, gdpr: Report) -> None:
    name, one = next(iter(gdpr.measured.items()))
    hostile = replace(gdpr, measured={**gdpr.measured, name: replace(one, found="<script>alert(1)</script>")})
    assert "<script" not in page(hostile, project.signing_key)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], State.YOURS),
        ([State.HOLDS, State.HOLDS], State.HOLDS),
        ([State.HOLDS, State.IDLE], State.HOLDS),
        ([State.IDLE], State.IDLE),
        ([State.OFF, State.OFF], State.OFF),
        ([State.OPEN], State.OPEN),
        ([State.HOLDS, State.OPEN], State.PARTLY),
        ([State.OFF, State.OPEN], State.PARTLY),
        ([State.HOLDS, State.FAILS, State.OPEN], State.FAILS),
    ],
)
def test_a_control_is_as_its_measures(states: list[State], expected: State) -> None:
    assert state_of(states) is expected
