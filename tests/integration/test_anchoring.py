"""Heads of one installation's audit log at another: taken, refused, and what both do then."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.console.client import Client
from kit.console.flights import Project
from kit.forwarded import forwarded
from mainspring.console.app import create_app
from mainspring.core.errors import Conflict, Corrupt, Denied, Invalid, Unavailable
from mainspring.core.settings import Url
from mainspring.core.time import DAY, HOUR, ManualClock
from mainspring.operations.access import add_account
from mainspring.operations.anchoring import AWAY_US, judged, lags, receive_head
from mainspring.operations.auditing import anchored, audit, verify_audit
from mainspring.operations.keys import create_key
from mainspring.operations.watching import settle
from mainspring.security.adapters.anchors_installation import InstallationAnchors
from mainspring.security.conformance import ANCHORED_BY, AnchorsConformance, heads_of_a_log
from mainspring.security.model import Grant, KeyScope, Kind, Principal, ReceivedHead, Role
from mainspring.security.ports import Anchors
from mainspring.security.signing import SigningKey
from mainspring.security.tree_heads import Head, sign_head

COURIER = Principal("courier", "courier", frozenset((KeyScope.ANCHOR,)))


@pytest.fixture
def there() -> Project:
    """The installation that keeps the heads."""
    project = Project()
    project.settings = replace(project.settings, audit_anchored=(SigningKey(bytes(32)).public, ANCHORED_BY.public))
    return project


@pytest.fixture
def key_file(there: Project, tmp_path: Path) -> Path:
    account = add_account(there, Kind.SERVICE, "courier")
    there.accounts.grant(Grant(Kind.SERVICE, account.id, Role.ANCHORER))
    path = tmp_path / "key"
    path.write_text(create_key(there, "courier", [KeyScope.ANCHOR], DAY, owner=account.id))
    return path


@pytest.fixture
def address(there: Project) -> Iterator[str]:
    with forwarded(create_app(there)) as served:
        yield served


@pytest.fixture
def open_as(address: str, key_file: Path) -> Callable[[bytes], Anchors]:
    return lambda public: InstallationAnchors(Url(f"{address}?key_file={key_file}"), public)


class TestInstallationAnchors(AnchorsConformance):
    @pytest.fixture
    def anchors(self, open_as: Callable[[bytes], Anchors]) -> Anchors:
        return open_as(ANCHORED_BY.public)

    @pytest.fixture
    def again(self, open_as: Callable[[bytes], Anchors]) -> Callable[[], Anchors]:
        return lambda: open_as(ANCHORED_BY.public)


def test_a_log_that_is_replaced_with_its_key_is_refused_and_an_incident(
    there: Project, open_as: Callable[[bytes], Anchors]
) -> None:
    place = open_as(ANCHORED_BY.public)
    [(note, proof)] = heads_of_a_log(9)
    place.append(note, proof)
    forks = [heads_of_a_log(9, 12, of=b"other")[1], heads_of_a_log(5)[0], heads_of_a_log(9, of=b"other")[0]]
    forks.append((sign_head(Head("mainspring/other", 9, bytes(32)), ANCHORED_BY), []))
    for fork, shown in forks:
        with pytest.raises(Corrupt, match=r"refused: The (audit log|head)"):
            place.append(fork, shown)
    with pytest.raises(Corrupt):
        place.append(*forks[-1])  # once more, which is not kept twice
    assert list(place.read()) == [note]
    kept = [each.note for each in there.received_heads.refused(0)]
    assert kept == [fork for fork, _ in (forks[0], *forks[2:])]  # a shorter one may just be late
    assert [each.action for each in there.audit.read(5)][:4].count("audit.fork") == 3
    settle(there, [judged(there)], there.clock.now())
    found = {str(each.cause): each.page for each in there.incidents.open()}
    assert found == {"audit log mainspring/courier": True, "audit log mainspring/other": True}
    place.append(*heads_of_a_log(9, 12)[1])  # the log itself goes on


def test_the_proof_counts_and_strangers_are_refused(there: Project, open_as: Callable[[bytes], Anchors]) -> None:
    place = open_as(ANCHORED_BY.public)
    for note, proof in heads_of_a_log(9):
        place.append(note, proof)
    (_, _), (later, proof) = heads_of_a_log(9, 12)
    with pytest.raises(Corrupt):
        place.append(later, [bytes(32), *proof[1:]])
    with pytest.raises(Denied, match="No installation"):
        place.append(sign_head(Head("mainspring/x", 1, bytes(32)), SigningKey(bytes(range(32)))), [])
    with pytest.raises(Unavailable, match="not a signed checkpoint"):
        place.append("no head", [])
    viewer = Client(create_app(there), there.key(KeyScope.VIEW, KeyScope.MANAGE))
    assert viewer("POST", "/api/audit/heads", json={"head": later}).status_code == 403
    sender = Client(create_app(there), there.key(KeyScope.ANCHOR))
    for body in ({"head": later, "proof": ["x"]}, {"head": 1}, {"proof": []}, {"head": later, "proof": [""] * 129}):
        assert sender("POST", "/api/audit/heads", json=body).status_code == 400, body


def test_a_head_that_was_refused_once_is_taken_with_its_proof(there: Project) -> None:
    (first, _), (last, proof) = heads_of_a_log(9, 15)
    receive_head(there, first, [], COURIER)
    for base in (None, 9):
        with pytest.raises(Conflict):
            receive_head(there, last, [], COURIER, base=base)
    receive_head(there, last, proof, COURIER, base=9)
    assert [each.size for each in there.received_heads.of(ANCHORED_BY.public, taken=True, limit=9)] == [15, 9]


def test_a_head_that_is_late_is_no_fork(there: Project) -> None:
    heads = heads_of_a_log(9, 12, 15)
    for note, proof in heads[:2]:
        receive_head(there, note, proof, COURIER)
    (_, from_9) = heads_of_a_log(9, 15)[1]
    for note, proof, base in ((heads[0][0], [], None), (heads[2][0], from_9, 9), (heads[2][0], from_9, None)):
        with pytest.raises(Conflict, match="12"):
            receive_head(there, note, proof, COURIER, base=base)
    assert (judged(there).signals, there.received_heads.refused(0), there.audit.read()) == ((), [], [])


def test_one_key_does_not_fill_the_catalog(there: Project) -> None:
    [(note, _)] = heads_of_a_log(9)
    [(other, _)] = heads_of_a_log(9, of=b"other")
    receive_head(there, note, [], COURIER)
    larger = [heads_of_a_log(9, size, of=b"other")[1] for size in (12, 15)]
    elsewhere = [(sign_head(Head("mainspring/other", size, bytes(32)), ANCHORED_BY), []) for size in (9, 10)]
    for line in ("", "\u2014 x AAAA\n", "\u2014 y AAAA\n"):
        receive_head(there, note + line, [], COURIER)
        for sent, proof in (*elsewhere, (other, []), *larger):
            with pytest.raises(Conflict):
                receive_head(there, sent + line, proof, COURIER, base=9)
    forks = [elsewhere[0][0], other, larger[0][0]]
    assert [each.note for each in there.received_heads.of(ANCHORED_BY.public, limit=99)] == [*forks[::-1], note]
    assert [each.action for each in there.audit.read()] == ["audit.fork"] * 3


def test_of_heads_that_come_at_once_one_has_the_number(there: Project) -> None:
    [(note, _)] = heads_of_a_log(9)
    head = ReceivedHead(ANCHORED_BY.public, 0, 9, note, 1, "courier", "")
    there.received_heads.add(head)
    with pytest.raises(Conflict):
        there.received_heads.add(replace(head, size=12))
    assert there.received_heads.of(ANCHORED_BY.public, limit=9) == [head]


def test_verification_uses_the_heads_and_a_place_that_is_away_lags(
    there: Project, open_as: Callable[[bytes], Anchors], key_file: Path
) -> None:
    url = Url("https://there:8081?key_file=x")
    here = Project()
    here.settings = replace(here.settings, audit_anchors=(url,))
    here.anchors = {url.shown: open_as(here.signing_key.public)}
    for number in range(3):
        audit(here, "train", f"model/{number}")
        assert [each.problem for each in anchored(here, add=True)] == [""]
    assert (verify_audit(here).damage, verify_audit(here).anchors) == ((), 4)
    assert [each.events for each in lags(here)] == [0]
    assert judged(here).signals == ()

    token = key_file.read_text()
    key_file.write_text("msp_none")
    audit(here, "train", "model/later")
    [place] = anchored(here, add=True)
    assert "refused" in place.problem
    assert [(each.events, each.since) for each in lags(here)] == [(1, here.wall.now())]
    assert judged(here).signals == ()
    later = here.having(here.settings, wall=ManualClock(here.wall.now() + AWAY_US + HOUR), anchors=here.anchors)
    settle(later, [judged(later)], later.wall.now())
    [incident] = later.incidents.open()
    assert (str(incident.cause), incident.page) == (f"audit log {url.shown}", False)
    metrics: Any = Client(create_app(later), later.key(KeyScope.SCRAPE)).get("/metrics").text
    assert f'mainspring_audit_anchor_lag_events{{place="{url.shown}"}} 1.0' in metrics
    key_file.write_text(token)
    assert [each.problem for each in anchored(later, add=True)] == [""]
    assert judged(later).signals == ()


@pytest.mark.parametrize(
    "url",
    ["https://there", "https://there/path?key_file=k", "http://there?key_file=k", "https://there?key_file=k&x=1"],
)
def test_an_address_of_no_control_plane_is_refused(url: str) -> None:
    with pytest.raises(Invalid):
        InstallationAnchors(Url(url), bytes(32))


def test_texts_of_proofs_are_one_way_to_write_them(there: Project) -> None:
    sender = Client(create_app(there), there.key(KeyScope.ANCHOR))
    [(note, _)] = heads_of_a_log(9)
    padded = b64encode(bytes(32)).decode().rstrip("=")
    assert sender("POST", "/api/audit/heads", json={"head": note, "proof": [padded]}).status_code == 400
