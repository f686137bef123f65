"""Predictions go on while the catalog is away: killed, hanging or locked; and what is then late."""

from __future__ import annotations

import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.servers import PostgresServer, running
from kit.standing import Standing
from kit.waiting import wait_until

KNOWN_TO_NOBODY = "msp_01h0000000000000000000000z_" + "a" * 43


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running(PostgresServer) as server:
        yield server


@pytest.fixture
def standing(server: PostgresServer, tmp_path: Path) -> Iterator[Standing]:
    made = Standing(tmp_path / "project", catalog=server.fresh().text)
    made.publish()
    yield made
    made.project.close()


def unknown_key(standing: Standing) -> str:
    """Return a token that is well formed and of no key."""
    return f"{KNOWN_TO_NOBODY}{zlib.crc32(KNOWN_TO_NOBODY.encode()):08x}"


def test_a_killed_catalog_stops_no_prediction_and_delays_revocations(
    standing: Standing, server: PostgresServer
) -> None:
    token, revoked = standing.key(), standing.key("to be revoked")
    with standing.gateway():
        assert standing.predict(token).status == standing.predict(revoked).status == 200
        server.stop(signal.SIGKILL)
        try:
            answers = [standing.predict(token) for _ in range(40)]
            wait_until(lambda: "catalog_stale_since" in standing.ready().body, "the gateway to say that it is stale")
            answers += [standing.predict(token) for _ in range(20)]
            assert {answer.status for answer in answers} == {200}
            assert standing.ready().status == 200
            assert "mainspring_catalog_stale_seconds 0.0" not in standing.numbers(token)
            stranger = standing.predict(unknown_key(standing))
            assert (stranger.status, stranger.headers.get("retry-after")) == (503, "1")
        finally:
            server.start()
        standing.revoke(revoked)
        wait_until(lambda: standing.predict(revoked).status == 401, "the revocation to count")
        wait_until(lambda: standing.ready().body == {"ready": True}, "the gateway to be fresh")
        assert standing.predict(token).status == 200
        assert standing.predict(standing.key("new")).status == 200
        assert standing.predict(unknown_key(standing)).status == 401


def test_a_catalog_that_hangs_is_waited_for_by_nobody(standing: Standing, server: PostgresServer) -> None:
    token = standing.key()
    with standing.gateway():
        assert standing.predict(token).status == 200
        server.pause()
        try:
            assert {standing.predict(token).status for _ in range(40)} == {200}
            assert standing.predict(unknown_key(standing)).status == 503
            wait_until(lambda: "catalog_stale_since" in standing.ready().body, "the gateway to say that it is stale")
            assert {standing.predict(token).status for _ in range(20)} == {200}
        finally:
            server.resume()
        wait_until(lambda: standing.ready().body == {"ready": True}, "the gateway to be fresh")
        standing.publish("2")
        wait_until(lambda: standing.predict(token).body["model_version"] == "2", "the gateway to follow")


def test_a_gateway_that_starts_without_its_catalog_serves_its_last_copy(
    standing: Standing, server: PostgresServer
) -> None:
    token, revoked = standing.key(), standing.key("revoked")
    standing.revoke(revoked)
    with standing.gateway():
        assert standing.predict(token).status == 200
    copy = standing.root / ".mainspring" / "gateway.copy"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert token.encode()[-43:] not in copy.read_bytes()
    server.stop(signal.SIGKILL)
    try:
        with standing.gateway():
            assert standing.predict(token).status == 200
            assert standing.predict(revoked).status == 401
        copy.write_bytes(copy.read_bytes().replace(b'"weight":1.0', b'"weight":2.0'))
        with standing.gateway(ready=False):
            wait_until(lambda: standing.ready().status == 503, "the gateway to answer")
            assert standing.predict(token).status == 503, "a copy that was changed counts for nothing"
    finally:
        server.start()


def test_a_locked_sqlite_catalog_stops_no_prediction(tmp_path: Path) -> None:
    standing = Standing(tmp_path / "project")
    standing.publish()
    token, catalog = standing.key(), standing.root / ".mainspring" / "catalog.db"
    standing.project.close()
    with standing.gateway():
        assert standing.predict(token).status == 200
        # Bytes 120 to 127 of its index are the locks of its readers and writers: https://www.sqlite.org/walformat.html
        hold = (
            "import fcntl, sys; file = open(sys.argv[1] + '-shm', 'r+b')\n"
            "fcntl.lockf(file, fcntl.LOCK_EX, 8, 120); print('held', flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", hold, str(catalog)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            assert {standing.predict(token).status for _ in range(20)} == {200}
            wait_until(lambda: "catalog_stale_since" in standing.ready().body, "the gateway to say that it is stale")
            assert {standing.predict(token).status for _ in range(20)} == {200}
            holder.kill()
        wait_until(lambda: standing.ready().body == {"ready": True}, "the gateway to be fresh")
