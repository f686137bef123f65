"""TLS at the gateway and the console: what is served, to whom, and what is said of files that are not good."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from kit import prefork
from kit.certificates import DAY, Authority
from kit.fleet import BODY, INFER, Fleet
from kit.waiting import free_port, wait_until
from mainspring.core.errors import Invalid
from mainspring.core.settings import Tls
from mainspring.deploy.adapters.targets.image import probe
from mainspring.operations.doctor import examine
from mainspring.operations.plane_connection import answers, connect
from mainspring.processes.kinds import log_path
from mainspring.project import Project
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
        tmp_path_factory.mktemp("fleet"), settings=_settings(authority.issue("server")), context=authority.trusting(),
        forked=True,
    )  # fmt: skip
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


def test_the_newest_version_of_the_protocol(fleet: Fleet, authority: Authority) -> None:
    with _connected(fleet) as plain, authority.trusting().wrap_socket(plain, server_hostname="127.0.0.1") as secure:
        assert secure.version() == "TLSv1.3"


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2])
def test_older_ones_are_refused(fleet: Fleet, authority: Authority, newest: ssl.TLSVersion) -> None:
    context = authority.trusting()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, newest
    context.set_ciphers("ALL:@SECLEVEL=0")
    with _connected(fleet) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_plain_http_is_not_answered(fleet: Fleet) -> None:
    with _connected(fleet) as plain:
        plain.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert not plain.recv(4096).startswith(b"HTTP/")


def test_the_health_check_of_an_image_speaks_tls_where_the_gateway_does(fleet: Fleet) -> None:
    for port, path, code in ((fleet.port, "v2/health/ready", 0), (fleet.port, "v2/health/none", 1), (1, "", 1)):
        command = [sys.executable, "-I", "-c", probe(port)[-1]]
        done = subprocess.run(command, env={"MAINSPRING_PROBE": f"{port}/{path}"}, capture_output=True, check=False)
        assert done.returncode == code, done.stderr


def test_a_health_check_fills_no_log_and_a_broken_handshake_is_told(fleet: Fleet) -> None:
    def logged() -> str:
        logs = log_path(fleet.project.settings.state, "gateway").parent.glob("gateway*.log")  # of either process
        return "".join(each.read_text() for each in logs)

    told = "A connection was not made"
    before = logged().count(told)
    command = [sys.executable, "-I", "-c", probe(fleet.port)[-1]]
    assert subprocess.run(command, env={}, capture_output=True, check=False).returncode == 0
    with _connected(fleet) as plain:
        plain.sendall(b"\x00" * 64)
        assert not plain.recv(4096).startswith(b"HTTP/")
    wait_until(lambda: logged().count(told) > before, "the log of the handshake that broke")
    assert "http request" not in logged().lower(), "of the health check, which came before"


def test_who_connects_and_says_nothing_holds_up_nobody(fleet: Fleet) -> None:
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(_connected(fleet))
        assert all(fleet.ask("POST", INFER, BODY).status == 200 for _ in range(10))


def test_callers_must_show_a_certificate_where_an_authority_is_set(tmp_path: Path, authority: Authority) -> None:
    clients = Authority(tmp_path, name="clients")
    settings = _settings(authority.issue("mutual"), clients.certificate)
    fleet = Fleet(tmp_path / "project", workers=1, settings=settings, forked=True)
    fleet.publish("1")
    with fleet.up():
        fleet.context = authority.trusting(clients.issue("caller"))
        assert fleet.ask("POST", INFER, BODY).status == 200
        assert answers(fleet.project.settings.gateway, "/v2/health/live")  # it is there; more needs a certificate
        command = [sys.executable, "-I", "-c", probe(fleet.port)[-1]]
        assert subprocess.run(command, env={}, check=False).returncode == 0, "likewise"
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


def asked(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/login")
    return connection.getresponse().status


def test_the_console_over_mutual_tls(tmp_path: Path, authority: Authority) -> None:
    tls = authority.issue("console")
    root, port = tmp_path, free_port()
    (root / "features.py").write_text("")
    (root / "mainspring.toml").write_text(
        f'name = "secure"\nmodules = ["features"]\n[profiles.local.control]\naddress = "127.0.0.1:{port}"\n'
        f'tls_cert = "{tls.cert}"\ntls_key = "{tls.key}"\ntls_client_ca = "{authority.certificate}"\n'
    )
    settings = load_settings(root, environment={})
    process = subprocess.Popen([prefork.programs() / "python", "-m", "mainspring.console", "--project", str(root)])
    try:
        wait_until(lambda: answers(settings.control, "/health/live"), "the console")
        for shown in (authority.issue("browser"), None):
            context = authority.trusting(shown)
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
            if shown is None:
                with pytest.raises(OSError, match="certificate required"):
                    asked(connection)
            else:
                assert asked(connection) == 200
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
        found = examine(fleet.project, only="certificates")
        assert [each.ok for each in found] == [ok]
        assert f"ends-{ends.days}.pem of the gateway" in found[0].detail


def test_certificates_and_authorities_are_loaded_again_by_what_runs(tmp_path: Path, authority: Authority) -> None:
    """No request is lost, on connections that stay or on new ones; files that cannot be served change nothing."""
    clients, later = Authority(tmp_path, name="clients"), Authority(tmp_path, name="later")
    accepted = tmp_path / "accepted.pem"
    accepted.write_bytes(clients.certificate.read_bytes())
    fleet = Fleet(
        tmp_path,
        settings=_settings(authority.issue("renewed"), accepted),
        context=authority.trusting(clients.issue("a")),
        forked=True,
    )
    fleet.publish("1")
    with fleet.up():
        pids, log = fleet.pids, fleet.project.settings.state / "logs" / "gateway-1.log"
        with fleet.load(threads=2) as load:
            load.until_answered(20)
            shown = authority.trusting(later.issue("b"))
            stranger = http.client.HTTPSConnection("127.0.0.1", fleet.port, timeout=30, context=shown)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                _asked(stranger)
            new = authority.issue("renewed")  # in the same files
            accepted.write_bytes(b"".join(each.certificate.read_bytes() for each in (clients, later, authority)))
            wait_until(lambda: _reloads(fleet, "loaded") == [1.0, 1.0], "both processes to load the files")
            assert {_served(fleet) for _ in range(10)} == {new.cert.read_text()}
            assert _asked(stranger) == 200
            mine = fleet.project.settings
            assert _asked(connect(mine.gateway, mine.gateway_tls)) == 200  # by the plane's own certificate

            authority.issue("renewed", begins=-2 * DAY, ends=-DAY)
            wait_until(lambda: _reloads(fleet, "refused") == [1.0, 1.0], "both processes to refuse them")
            assert all(fleet.ask("POST", INFER, BODY).status == 200 for _ in range(20))
            assert {_served(fleet) for _ in range(10)} != {new.cert.read_text()}
            load.until_answered(20)
        assert load.failures == []
        assert fleet.pids == pids
        assert "The former certificate stays in use: " in log.read_text()
        (found,) = examine(fleet.project, only="certificates")
        assert "renewed.pem expired on" in found.detail

        # One that is killed cannot start with them, and is tried again while another serves.
        fleet.kill("gateway-1")
        wait_until(lambda: log.read_text().count("renewed.pem expired") > 1, "an attempt")
        assert all(fleet.ask("POST", INFER, BODY).status == 200 for _ in range(20))
        authority.issue("renewed")
        fleet.until_all_serve("1")


def test_doctor_says_that_another_certificate_is_served(fleet: Fleet, authority: Authority) -> None:
    settings = fleet.project.settings
    elsewhere = replace(settings, gateway_tls=authority.issue("elsewhere"))
    (found,) = examine(Project(elsewhere), only="certificates")
    assert (found.ok, "serves another certificate than" in found.detail) == (False, True)
    assert [each.ok for each in examine(fleet.project, only="certificates")] == [True]


def test_who_is_signed_by_an_intermediate_of_the_plane_is_not_the_plane(fleet: Fleet, authority: Authority) -> None:
    mine = authority.issue("mine")
    chain = mine.cert.with_name("chain.pem")
    chain.write_bytes(mine.cert.read_bytes() + authority.certificate.read_bytes())
    connection = connect(fleet.project.settings.gateway, Tls(chain, mine.key))
    with pytest.raises(ssl.SSLCertVerificationError):
        connection.request("GET", "/v2/health/live")
    connection.close()


def _asked(connection: http.client.HTTPConnection) -> int:
    try:
        connection.request("GET", "/v2/health/live")
        return connection.getresponse().status
    finally:
        connection.close()


def _reloads(fleet: Fleet, outcome: str) -> list[float]:
    wanted = re.compile(rf'mainspring_certificate_reloads_total{{slot="\d",outcome="{outcome}"}} (.+)')
    return [float(each) for each in wanted.findall(fleet.scrape())]


def _served(fleet: Fleet) -> str:
    return ssl.get_server_certificate(("127.0.0.1", fleet.port)).replace("\n\n", "\n")
