"""Servers that want a certificate of whoever connects: each gets it, and refuses who shows none.

Those that speak no TLS themselves have `kit.mutual` in front of them. Of the others: `test_log_nats`,
`test_edge_fleet` (MQTT), `test_online_stores_servers` (Redis), `test_profile_check` (Postgres), `test_client_tls`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tuf.api.exceptions import DownloadError

from kit.certificates import Authority
from kit.collector import collector
from kit.console.flights import Project
from kit.forwarded import forwarded
from kit.inbox import http_inbox, mail_inbox
from kit.incidents import incident
from kit.mutual import front
from kit.scripted_upstream import scripted
from kit.servers import KafkaBroker, running
from kit.transit_server import transit
from kit.waiting import free_port
from mainspring.console.app import create_app
from mainspring.core.errors import Unavailable
from mainspring.core.settings import Receiver, Tls, UpstreamServer, Url
from mainspring.core.time import DAY, SystemClock
from mainspring.data.adapters.log_kafka import KafkaLog
from mainspring.data.streams.model import NewMessage
from mainspring.deploy.engines.kubernetes_api import from_config
from mainspring.llm.model import UpstreamError
from mainspring.monitoring.adapters.notify_email import EmailNotifier
from mainspring.monitoring.adapters.notify_http import WebhookNotifier
from mainspring.monitoring.notify.ports import Message, Notice
from mainspring.operations.access import add_account
from mainspring.operations.keys import create_key
from mainspring.operations.service.otlp import MetricsPush
from mainspring.project.language_models import build_upstream
from mainspring.security.adapters.anchors_installation import InstallationAnchors
from mainspring.security.adapters.key_vault import VaultKeys
from mainspring.security.conformance import ANCHORED_BY, heads_of_a_log
from mainspring.security.model import Grant, KeyScope, Kind, Role
from mainspring.serving.plane.tracing import otlp
from mainspring_edge.errors import Refused
from mainspring_edge.fleet_cli import read_setup
from mainspring_edge.queue import Queue
from mainspring_edge.updates import HttpsFetcher, Unreachable
from mainspring_edge.upload import Uploads


@dataclass(frozen=True)
class Site:
    """An authority, and the certificate that we show."""

    authority: Authority
    shown: Tls

    @property
    def ca(self) -> str:
        return str(self.authority.certificate)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    authority = Authority(tmp_path_factory.mktemp("mutual"))
    return Site(authority, authority.issue("courier"))


def _message() -> Message:
    now = SystemClock().now()
    made = incident("late", now)
    notices = (Notice(id=f"{made.id}-1-ops", event="opened", at=now, incident=made),)
    return Message(id="m1", project="flights", console="http://127.0.0.1:8081", now=now, notices=notices)


def _receiver(site: Site, url: str) -> Receiver:
    at: dict[str, Any] = {
        "sender": "mainspring@example.org",
        "to": ("team@example.org",),
        "user": "mainspring",
        "secret": "s3cret",
    }
    return Receiver("ops", url, ca=site.ca, cert=str(site.shown.cert), cert_key=str(site.shown.key), **at)


def test_a_webhook(site: Site) -> None:
    with http_inbox() as inbox, front(site.authority, inbox.port) as at:
        receiver = _receiver(site, f"https://127.0.0.1:{at.port}/hook")
        with pytest.raises(Unavailable):
            WebhookNotifier(replace(receiver, cert="")).send(_message(), within_s=10)
        assert (inbox.requests, at.names) == ([], [])
        WebhookNotifier(receiver).send(_message(), within_s=10)
        assert at.names == ["courier"]
    assert len(inbox.requests) == 1


def test_a_mail_server(site: Site) -> None:
    issued = site.authority.issue("mail")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert, issued.key)
    context.load_verify_locations(site.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    with mail_inbox(free_port(), context) as inbox:
        receiver = _receiver(site, f"smtp://127.0.0.1:{inbox.port}")
        with pytest.raises(Unavailable):
            EmailNotifier(replace(receiver, cert="")).send(_message(), within_s=10)
        EmailNotifier(receiver).send(_message(), within_s=10)
    assert len(inbox.mails) == 1


def test_another_installation_that_keeps_anchors(site: Site, tmp_path: Path) -> None:
    there, key = Project(), tmp_path / "key"
    there.settings = replace(there.settings, audit_anchored=(ANCHORED_BY.public,))
    account = add_account(there, Kind.SERVICE, "courier")
    there.accounts.grant(Grant(Kind.SERVICE, account.id, Role.ANCHORER))
    key.write_text(create_key(there, "courier", [KeyScope.ANCHOR], DAY, owner=account.id))
    [(note, proof)] = heads_of_a_log(9)
    with forwarded(create_app(there)) as address, front(site.authority, urlsplit(address).port or 0) as at:
        url = f"https://127.0.0.1:{at.port}?key_file={key}&ca={site.ca}"
        with pytest.raises(Unavailable):
            InstallationAnchors(Url(url), ANCHORED_BY.public).append(note, proof)
        url += f"&cert={site.shown.cert}&cert_key={site.shown.key}"
        place = InstallationAnchors(Url(url), ANCHORED_BY.public)
        place.append(note, proof)
        assert [*place.read()] == [note]
        assert set(at.names) == {"courier"}


def test_what_devices_fetch_and_upload(site: Site, tmp_path: Path) -> None:
    told = {"project": "flights", "device": "cam-1", "package": "late", "key": "", "root": "", "repository": "",
            "broker": "", "ca": site.ca, "certificate": [str(site.shown.cert), str(site.shown.key)]}  # fmt: skip
    (tmp_path / "cam-1.json").write_text(json.dumps(told))
    shown = read_setup(tmp_path / "cam-1.json", {}).certificate
    queue, key = Queue(tmp_path / "queue.db"), Ed25519PrivateKey.generate()
    queue.add([{"kind": "row"}])
    with forwarded(create_app(Project())) as address, front(site.authority, urlsplit(address).port or 0) as at:
        url, about = f"https://127.0.0.1:{at.port}", {"project": "flights", "device": "cam-1"}
        with pytest.raises(DownloadError):
            HttpsFetcher(site.ca, 10.0).download_bytes(f"{url}/health/live", 999)
        assert HttpsFetcher(site.ca, 10.0, shown).download_bytes(f"{url}/health/live", 999)
        with pytest.raises(Unreachable):
            Uploads(url, about, key, ca=site.ca).send(queue, {})
        assert at.names == ["courier"]
        with pytest.raises(Refused, match="refuses this device"):  # by its application: nobody knows the device
            Uploads(url, about, key, ca=site.ca, certificate=shown).send(queue, {})
        assert at.names == ["courier", "courier"]


def test_vault(site: Site) -> None:
    with transit() as engine, front(site.authority, urlsplit(engine.url).port or 0) as at:
        url = engine.url.replace(f":{urlsplit(engine.url).port}/", f":{at.port}/").replace("in_clear=true", "")
        with pytest.raises(Unavailable):
            VaultKeys(Url(f"{url}ca={site.ca}")).version()
        keys = VaultKeys(Url(f"{url}ca={site.ca}&cert={site.shown.cert}&key={site.shown.key}"))
        assert keys.unwrap(keys.wrap([b"k" * 32], ["c"]), ["c"]) == [b"k" * 32]
        assert set(at.names) == {"courier"}


def test_kafka(site: Site) -> None:
    port = free_port()

    class Behind(KafkaBroker):
        def command(self) -> list[str]:
            command = super().command()
            command[command.index("--advertised-listener-url") + 1] = f"tcp://127.0.0.1:{port}"
            return command

    with running(Behind) as broker, front(site.authority, broker.port, port) as at:
        url = f"kafka://127.0.0.1:{port}?batch.num.messages=1&security.protocol=SSL&ssl.ca.location={site.ca}"
        stranger = KafkaLog(Url(f"{url}&timeout=1s"))
        with pytest.raises(Unavailable):
            stranger.topics()
        stranger.close()
        assert at.names == []
        shown = f"&ssl.certificate.location={site.shown.cert}&ssl.key.location={site.shown.key}"
        log = KafkaLog(Url(url + shown))
        log.create("clicks")
        log.produce("clicks", [NewMessage(b"x")])
        assert log.topics() == ["clicks"]
        log.close()
        assert set(at.names) == {"courier"}


def test_kubernetes(site: Site) -> None:
    with forwarded(create_app(Project())) as address, front(site.authority, urlsplit(address).port or 0) as at:
        cluster = {"server": f"https://127.0.0.1:{at.port}", "certificate-authority": site.ca}
        user = {"client-certificate": str(site.shown.cert), "client-key": str(site.shown.key)}
        document: dict[str, Any] = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
        }
        assert from_config(document, site.authority.folder).ask("GET", "/health/live").status == 200
        document["users"][0]["user"] = {}
        with pytest.raises(Unavailable):
            from_config(document, site.authority.folder).ask("GET", "/health/live")
        assert at.names == ["courier"]


def test_a_collector(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as received, front(site.authority, received.port) as at:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", site.ca)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(site.shown.cert))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(site.shown.key))
        url = f"https://127.0.0.1:{at.port}"
        push, spans = MetricsPush(Project(), url), otlp(url)
        push.push()
        push.close()
        spans.export(())
        spans.shutdown()
        assert received.paths == {"/v1/metrics", "/v1/traces"}
        assert set(at.names) == {"courier"}


def test_an_upstream_of_language_models(site: Site) -> None:
    async def ask(url: str, shown: Tls | None) -> tuple[str, ...]:
        server = UpstreamServer("local", url, ca=site.authority.certificate)
        if shown is not None:
            server = replace(server, cert=shown.cert, cert_key=shown.key)
        upstream = build_upstream(server)
        try:
            return await upstream.models()
        finally:
            await upstream.close()

    with scripted() as behind, front(site.authority, urlsplit(behind.url).port or 0) as before:
        url = f"https://127.0.0.1:{before.port}/v1"
        assert asyncio.run(ask(url, site.shown)) == ("tiny",)
        assert before.names == ["courier"]
        with pytest.raises(UpstreamError, match="'local'"):
            asyncio.run(ask(url, None))
