"""TLS at the gateway and the console: what is served, to whom, and what is said of files that are not good."""

from __future__ import annotations

import http.client
import signal
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kit.certificates import DAY, Authority
from kit.fleet import BODY, INFER, Fleet
from kit.waiting import free_port, wait_until
from mainspring.core.errors import Invalid
from mainspring.core.settings import Tls
from mainspring.operations.doctor import examine
from mainspring.operations.plane_connection import answers, connect
from mainspring.project.settings import load_settings


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def _settings(tls: Tls, client_ca: Path | None = None) -> dict[str, str]:
    found = {"gateway_tls_cert": str(tls.cert), "gateway_tls_key": str(tls.key)}
    return found | ({"gateway_tls_client_ca": str(client_ca)} if client_ca else {})


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Fleet]:
    fleet = Fleet(
        tmp_path_factory.mktemp("fleet"), settings=_settings(authority.issue("server")), context=authority.trusting()
    )
    fleet.publish("1")
    with fleet.up():
        yield fleet


def test_predictions_and_the_scrape_of_all_over_tls(fleet: Fleet) -> None:
    assert fleet.project.settings.gateway.url == f"https://127.0.0.1:{fleet.port}"
    with fleet.load(threads=2) as load:
        load.until_answered(50)
    assert load.failures == []
    assert fleet.serving() == {"0": {"1"}, "1": {"1"}}
    assert answers(fleet.project.settings.gateway, "/v2/health/live")


def test_other_hosts_are_refused_over_tls_too(fleet: Fleet) -> None:
    assert fleet.ask("POST", INFER, BODY, Host="evil.example").status == 403
    assert fleet.ask("POST", INFER, BODY, Host=f"127.0.0.1:{fleet.port}").status == 200


def test_a_caller_that_does_not_trust_the_certificate_is_not_fooled(fleet: Fleet) -> None:
    with _connected(fleet) as plain, pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(plain, server_hostname="127.0.0.1")


def _connected(fleet: Fleet) -> socket.socket:
    return socket.create_connection(("127.0.0.1", fleet.port), timeout=30)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_newer_versions_of_the_protocol(fleet: Fleet, authority: Authority, version: ssl.TLSVersion) -> None:
    context = authority.trusting()
    context.minimum_version = context.maximum_version = version
    with _connected(fleet) as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
        assert secure.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]


def test_older_ones_are_refused(fleet: Fleet, authority: Authority) -> None:
    context = authority.trusting()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with _connected(fleet) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_plain_http_is_not_answered(fleet: Fleet) -> None:
    with _connected(fleet) as plain:
        plain.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert not plain.recv(4096).startswith(b"HTTP/")


def test_who_connects_and_says_nothing_holds_up_nobody(fleet: Fleet) -> None:
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(_connected(fleet))
        assert all(fleet.ask("POST", INFER, BODY).status == 200 for _ in range(10))


def test_callers_must_show_a_certificate_where_an_authority_is_set(tmp_path: Path, authority: Authority) -> None:
    clients = Authority(tmp_path, name="clients")
    settings = _settings(authority.issue("mutual"), clients.certificate)
    fleet = Fleet(tmp_path / "project", workers=1, settings=settings)
    fleet.publish("1")
    with fleet.up():
        fleet.context = authority.trusting(clients.issue("caller"))
        assert fleet.ask("POST", INFER, BODY).status == 200
        assert answers(fleet.project.settings.gateway, "/v2/health/live")  # it is there; more needs a certificate
        for stranger in (None, authority.issue("stranger"), clients.issue("late", begins=-2 * DAY, ends=-DAY)):
            fleet.context = authority.trusting(stranger)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                fleet.ask("POST", INFER, BODY)
        fleet.context = authority.trusting(clients.issue("another"))
        assert fleet.ask("GET", "/v2/health/live").status == 200


def test_what_cannot_be_served_with_is_said_before_anything_starts(tmp_path: Path, authority: Authority) -> None:
    ended = authority.issue("ended", begins=-2 * DAY, ends=-DAY)
    fleet = Fleet(tmp_path, settings=_settings(ended))
    with pytest.raises(Invalid, match=r"ended\.pem expired on .*renew the certificate"), fleet.up():
        pass
    assert not (tmp_path / ".mainspring" / "logs").exists()


def test_the_console_over_tls(tmp_path: Path, authority: Authority) -> None:
    tls = authority.issue("console")
    root, port = tmp_path, free_port()
    (root / "features.py").write_text("")
    (root / "mainspring.toml").write_text(
        f'name = "secure"\nmodules = ["features"]\n[profiles.local.control]\naddress = "127.0.0.1:{port}"\n'
        f'tls_cert = "{tls.cert}"\ntls_key = "{tls.key}"\n'
    )
    settings = load_settings(root, environment={})
    process = subprocess.Popen([sys.executable, "-m", "mainspring.console", "--project", str(root)])
    try:
        wait_until(lambda: answers(settings.control, "/health/live"), "the console")
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=authority.trusting())
        connection.request("GET", "/login")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        process.terminate()
        assert process.wait(90) == 0


def test_the_command_line_calls_the_gateway_over_tls(fleet: Fleet) -> None:
    """It trusts the very certificate of the profile, and nobody else's."""
    settings = fleet.project.settings
    for tls, met in ((settings.gateway_tls, True), (Authority(fleet.root).issue("other"), False)):
        connection = connect(settings.gateway, tls)
        try:
            connection.request("GET", "/v2/health/live")
            assert connection.getresponse().status == 200
            assert met
        except ssl.SSLCertVerificationError:
            assert not met
        finally:
            connection.close()


def test_doctor_says_when_a_certificate_ends(tmp_path: Path, authority: Authority) -> None:
    for ends, ok in ((30 * DAY, True), (5 * DAY, False)):
        tls = authority.issue(f"ends-{ends.days}", ends=ends)
        fleet = Fleet(tmp_path / str(ends.days), settings=_settings(tls))
        found = [each for each in examine(fleet.project) if each.check == "certificates"]
        assert [each.ok for each in found] == [ok]
        assert f"ends-{ends.days}.pem of the gateway" in found[0].detail


def test_a_renewed_certificate_is_served_by_processes_that_were_replaced(tmp_path: Path, authority: Authority) -> None:
    """One after the other, under load. One that cannot start is tried again, later each time, while another serves."""
    fleet = Fleet(tmp_path, settings=_settings(authority.issue("renewed")), context=authority.trusting())
    fleet.publish("1")
    with fleet.up():
        new = authority.issue("renewed")  # in the same files
        with fleet.load(threads=2) as load:
            for name in ("gateway", "gateway-1"):
                load.until_answered(20)
                fleet.until_replaced(name, fleet.kill(name, signal.SIGTERM))
                fleet.until_all_serve("1")
        assert load.failures == []
        assert {_served(fleet) for _ in range(10)} == {new.cert.read_text()}

        new.key.rename(new.key.with_suffix(".away"))
        fleet.kill("gateway-1")
        log = fleet.project.settings.state / "logs" / "gateway-1.log"
        wait_until(lambda: log.read_text().count("renewed.key cannot be read") >= 3, "several attempts")
        assert all(fleet.ask("POST", INFER, BODY).status == 200 for _ in range(20))
        new.key.with_suffix(".away").rename(new.key)
        fleet.until_all_serve("1")


def _served(fleet: Fleet) -> str:
    return ssl.get_server_certificate(("127.0.0.1", fleet.port)).replace("\n\n", "\n")
