"""When a certificate's files are loaded again, and when not."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from kit.certificates import DAY, Authority
from mainspring.core.errors import Invalid
from mainspring.core.settings import Tls
from mainspring.core.time import ManualClock, SystemClock
from mainspring.security import renewal
from mainspring.security.renewal import Renewing

DAY_US = int(DAY.total_seconds()) * 1_000_000
MINUTE_US = 60_000_000


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(SystemClock().now() + MINUTE_US)


def _content(tls: Tls) -> bytes:
    return tls.cert.read_bytes()


def _numbers(found: Renewing[bytes]) -> tuple[int, int]:
    return found.renewals.loaded, found.renewals.refused


def test_files_that_changed_are_loaded_once(authority: Authority, clock: ManualClock) -> None:
    tls = replace(authority.issue("a"), client_ca=authority.certificate)
    found = Renewing(tls, _content, clock)
    assert not found.look()
    new = authority.issue("a", ends=20 * DAY)
    assert (found.look(), found.look()) == (True, False)
    assert found.current == new.cert.read_bytes()
    assert abs(found.renewals.expires - clock.now() - 20 * DAY_US) < 2 * MINUTE_US
    authority.certificate.write_bytes(authority.certificate.read_bytes())  # authorities count too
    assert found.look()
    assert _numbers(found) == (2, 0)


def test_a_link_that_is_pointed_elsewhere_is_a_change(authority: Authority, clock: ManualClock, tmp_path: Path) -> None:
    """So mounted secrets of Kubernetes are replaced."""
    shown = Tls(tmp_path / "shown.pem", tmp_path / "shown.key")
    for name in ("a", "b"):
        of = authority.issue(name)
        for link, target in ((shown.cert, of.cert), (shown.key, of.key)):
            link.with_suffix(".next").symlink_to(target)
            link.with_suffix(".next").replace(link)
        if name == "a":
            found = Renewing(shown, _content, clock)
    assert found.look()
    assert found.current == (tmp_path / "b.pem").read_bytes()


def test_files_that_are_being_written_are_left_alone(authority: Authority, clock: ManualClock) -> None:
    found = Renewing(authority.issue("a"), _content, clock)
    written = authority.issue("a").key.stat().st_ctime_ns // 1000
    clock.set(written + 500_000)
    assert not found.look()
    clock.set(written + 1_500_000)
    assert found.look()
    assert _numbers(found) == (1, 0)


def test_what_cannot_be_served_leaves_the_former_and_is_said_once(
    authority: Authority, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    tls = authority.issue("a")
    found, before = Renewing(tls, _content, clock), tls.cert.read_bytes()
    changes = {
        "expired on": lambda: authority.issue("a", begins=-2 * DAY, ends=-DAY),
        "is not a PEM certificate": lambda: tls.cert.write_text("nothing"),
        "cannot be read": tls.key.unlink,
        "does not belong to": lambda: tls.key.write_bytes(authority.issue("other").key.read_bytes()),
        "readable by other users": lambda: tls.key.chmod(0o644),
    }
    for refused, (said, change) in enumerate(changes.items(), start=1):
        authority.issue("a")
        change()
        caplog.clear()
        assert (found.look(), found.look()) == (False, False)
        assert [each.levelno for each in caplog.records] == [logging.ERROR]
        assert said in caplog.text
        assert _numbers(found) == (0, refused)
        assert found.current == before
    tls.key.chmod(0o600)
    assert found.look()


def test_one_that_is_valid_later_is_tried_again(
    authority: Authority, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "_AGAIN_S", 0.0)
    tls = authority.issue("a")
    found = Renewing(tls, _content, clock)
    new = authority.issue("a", begins=DAY)
    assert not found.look()
    clock.advance(2 * DAY_US)
    assert found.look()
    assert found.current == new.cert.read_bytes()


def test_the_first_must_be_good(authority: Authority, clock: ManualClock) -> None:
    with pytest.raises(Invalid, match="expired"):
        Renewing(authority.issue("a", begins=-2 * DAY, ends=-DAY), _content, clock)
