"""Messages about incidents reach real servers: webhooks, Slack's JSON, SMTP, Alertmanager, PagerDuty's format."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import msgspec
import pytest

import mainspring as ms
from kit.certificates import Authority
from kit.console import flights
from kit.inbox import HttpInbox, http_inbox, mail_inbox
from kit.incidents import incident
from kit.waiting import free_port, wait_until
from mainspring.core.errors import Denied, Invalid, MainspringError, Unavailable
from mainspring.core.settings import Receiver
from mainspring.core.time import SECOND, SystemClock
from mainspring.monitoring.adapters.notify_email import EmailNotifier
from mainspring.monitoring.adapters.notify_http import (
    AlertmanagerNotifier,
    PagerDutyNotifier,
    SlackNotifier,
    WebhookNotifier,
)
from mainspring.monitoring.incidents.model import Incident
from mainspring.monitoring.notify.ports import Message, Notice, Notifier
from mainspring.processes.worker import duties

NOW = SystemClock().now()
ALERTMANAGER = which("prometheus-alertmanager")


def message(*incidents: Incident, event: str = "opened", id: str = "m1") -> Message:
    notices = tuple(
        Notice(id=f"{each.id}-1-ops", event=event, at=NOW, incident=each)
        for each in incidents or (incident("late", NOW),)
    )
    return Message(id=id, project="flights", console="http://127.0.0.1:8081", now=NOW, notices=notices)


class Failing:
    """Windows of a lake that is away."""

    def run(self, endpoint: str) -> None:
        raise Unavailable(f"The lake did not answer for {endpoint}.")


@pytest.fixture
def inbox() -> Iterator[HttpInbox]:
    with http_inbox() as made:
        yield made


def send(notifier: Notifier, sent: Message, within_s: float = 30.0) -> None:
    notifier.send(sent, within_s=within_s)


class TestWebhook:
    def test_the_body_and_its_time_are_signed(self, inbox: HttpInbox) -> None:
        made = incident("late", NOW)
        send(WebhookNotifier(Receiver("ops", inbox.url, "s3cret")), message(made))
        [request] = inbox.requests
        time = request.headers["x-mainspring-timestamp"]
        expected = hmac.new(b"s3cret", time.encode() + b"." + request.body, hashlib.sha256).hexdigest()
        assert request.headers["x-mainspring-signature"] == f"sha256={expected}"
        assert int(time) == NOW // SECOND
        assert request.headers["idempotency-key"] == "m1"
        [told] = request.document["incidents"]
        assert (told["incident"], told["event"], told["level"]) == (made.id, "opened", "page")
        assert told["cause"] == {"kind": "source", "name": "weather"}
        assert told["details"][1] == "- All values of visibility are null."

    def test_without_a_secret_there_is_no_signature(self, inbox: HttpInbox) -> None:
        send(WebhookNotifier(Receiver("ops", inbox.url)), message())
        assert "x-mainspring-signature" not in inbox.requests[0].headers

    def test_a_redirect_is_not_followed(self, inbox: HttpInbox) -> None:
        with http_inbox() as other:
            inbox.status, inbox.location = 307, other.url
            with pytest.raises(Invalid, match="redirects are not followed"):
                send(WebhookNotifier(Receiver("ops", inbox.url)), message())
            assert other.requests == []

    @pytest.mark.parametrize(
        ("status", "kind"), [(500, Unavailable), (429, Unavailable), (401, Denied), (404, Invalid)]
    )
    def test_a_refusal_is_told_without_the_address(
        self, inbox: HttpInbox, status: int, kind: type[MainspringError]
    ) -> None:
        inbox.status = status
        with pytest.raises(kind, match=str(status)) as caught:
            send(WebhookNotifier(Receiver("ops", inbox.url, "s3cret")), message())
        assert not any(secret in str(caught.value) for secret in ("/hook", "s3cret", str(inbox.port)))

    def test_a_server_that_does_not_answer_ends_the_try(self, inbox: HttpInbox) -> None:
        inbox.stall = threading.Event()
        with pytest.raises(Unavailable, match="did not answer"):
            send(WebhookNotifier(Receiver("ops", inbox.url)), message(), within_s=0.2)

    def test_nobody_there(self) -> None:
        with pytest.raises(Unavailable):
            send(WebhookNotifier(Receiver("ops", f"http://127.0.0.1:{free_port()}/")), message())


class TestSlack:
    def test_one_incident_is_told_with_its_details_and_no_mention(self, inbox: HttpInbox) -> None:
        odd = msgspec.structs.replace(incident("late", NOW), owner="<!channel> & co\nnext")
        send(SlackNotifier(Receiver("team", inbox.url)), message(odd))
        text = inbox.requests[0].document["text"]
        assert text.splitlines()[0] == "*flights: [page] source weather opened (late)*"
        assert "Owner: &lt;!channel&gt; &amp; co next" in text

    def test_many_are_one_digest_of_bounded_length(self, inbox: HttpInbox) -> None:
        many = [incident("late", NOW, source=f"s{number}") for number in range(100)]
        send(SlackNotifier(Receiver("team", inbox.url)), message(*many))
        lines = inbox.requests[0].document["text"].splitlines()
        assert (lines[0], len(lines)) == ("*flights: 100 incidents changed, 100 of them pages*", 41)
        assert lines[-1] == "and 61 more: mainspring incidents list"


class TestPagerDuty:
    def test_an_incident_is_triggered_and_resolved_by_its_id(self, inbox: HttpInbox) -> None:
        made = incident("late", NOW)
        notifier = PagerDutyNotifier(Receiver("pd", inbox.url, "r0uting"))
        send(notifier, message(made))
        send(notifier, message(made, event="closed"))
        triggered, resolved = (each.document for each in inbox.requests)
        assert triggered["routing_key"] == resolved["routing_key"] == "r0uting"
        assert (triggered["event_action"], resolved["event_action"]) == ("trigger", "resolve")
        assert triggered["dedup_key"] == resolved["dedup_key"] == made.id
        payload = triggered["payload"]
        assert {"summary", "source", "severity"} <= payload.keys()  # those that the API demands
        assert (payload["severity"], payload["component"]) == ("critical", "late")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("mail"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> ssl.SSLContext:
    issued = authority.issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert, issued.key)
    return context


class TestEmail:
    def receiver(self, port: int, authority: Authority | None = None, **more: Any) -> Receiver:
        given = {
            "user": "mainspring",
            "secret": "s3cret",
            "ca": "" if authority is None else str(authority.certificate),
        }
        address = {"sender": "mainspring@example.org", "to": ("team@example.org", "ops@example.org")}
        return Receiver("mail", f"smtp://127.0.0.1:{port}", **{**address, **given, **more})

    def test_a_mail_is_sent_encrypted_after_a_log_in(self, authority: Authority, tls: ssl.SSLContext) -> None:
        made = incident("late", NOW)
        with mail_inbox(free_port(), tls) as inbox:
            notifier = EmailNotifier(self.receiver(inbox.port, authority))
            send(notifier, message(made))
            send(notifier, message(made, event="closed", id="m2"))
        first, second = inbox.mails
        assert inbox.users == ["mainspring", "mainspring"]
        assert inbox.recipients[0] == ["team@example.org", "ops@example.org"]
        assert first["Subject"] == "flights: [page] source weather opened (late)"
        assert first["Message-ID"] == "<m1@mainspring.invalid>"
        assert first["References"] == second["References"]
        assert "All values of visibility are null." in first.get_content()

    def test_a_wrong_password_is_denied(self, authority: Authority, tls: ssl.SSLContext) -> None:
        with mail_inbox(free_port(), tls) as inbox:
            with pytest.raises(Denied, match="refused the log-in"):
                send(EmailNotifier(self.receiver(inbox.port, authority, secret="guess")), message())
            assert inbox.mails == []

    def test_a_certificate_of_nobody_is_not_trusted(self, tls: ssl.SSLContext) -> None:
        with mail_inbox(free_port(), tls) as inbox:
            with pytest.raises(Unavailable):
                send(EmailNotifier(self.receiver(inbox.port)), message())
            assert inbox.users == []

    def test_a_server_without_encryption_gets_nothing_unless_that_is_allowed(self) -> None:
        with mail_inbox(free_port()) as inbox:
            with pytest.raises(Invalid):
                send(EmailNotifier(self.receiver(inbox.port, user="")), message())
            assert inbox.mails == []
            send(EmailNotifier(self.receiver(inbox.port, user="", in_clear=True)), message())
            assert len(inbox.mails) == 1

    def test_text_of_the_traffic_adds_no_header(self) -> None:
        odd = incident("late", NOW)
        odd = msgspec.structs.replace(odd, cause=msgspec.structs.replace(odd.cause, name="x\r\nBcc: all@example.org"))
        with mail_inbox(free_port()) as inbox:
            send(EmailNotifier(self.receiver(inbox.port, user="", in_clear=True)), message(odd))
            assert inbox.mails[0]["Bcc"] is None


class TestTheWorker:
    def test_a_fault_of_the_monitor_reaches_a_webhook_by_the_duties_of_a_worker(self, inbox: HttpInbox) -> None:
        monitors = {"late-arrival": ms.Monitor("late-arrival", notify=[ms.notify.webhook("ops")])}
        project = flights.Project(definitions=dataclasses.replace(flights.definitions(), monitors=monitors))
        receivers = {"OPS": Receiver("ops", inbox.url, "s3cret")}
        settings = dataclasses.replace(project.settings, receivers=receivers)
        project = project.having(settings, monitor=Failing())
        work = {each.name: each for each in duties(project)}
        work["watching endpoints"].do()
        work["sending messages"].do()
        [request] = inbox.requests
        causes = {each["cause"]["name"] for each in request.document["incidents"]}
        assert "windows of late-arrival" in causes
        assert {each["event"] for each in request.document["incidents"]} == {"opened"}
        assert [each.state for each in project.incidents.outgoing()] == ["sent"] * len(request.document["incidents"])
        work["watching endpoints"].do()
        work["sending messages"].do()
        assert len(inbox.requests) == 1


@pytest.mark.skipif(ALERTMANAGER is None, reason="prometheus-alertmanager is not installed")
class TestAlertmanager:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[str]:
        config = tmp_path / "alertmanager.yml"
        config.write_text("route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n")
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        process = subprocess.Popen(
            [
                str(ALERTMANAGER), f"--config.file={config}", f"--storage.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_until(lambda: urllib.request.urlopen(f"{url}/-/ready", timeout=5), "Alertmanager")
            yield url
        finally:
            process.kill()
            process.wait()

    def alerts(self, url: str) -> list[Any]:
        with urllib.request.urlopen(f"{url}/api/v2/alerts?active=true", timeout=30) as answer:
            found: list[Any] = json.load(answer)
        return found

    def test_an_incident_is_an_alert_until_it_is_closed(self, server: str) -> None:
        ticket = msgspec.structs.replace(incident("late", NOW), page=False)
        notifier = AlertmanagerNotifier(Receiver("am", server))
        send(notifier, message(ticket))
        [alert] = wait_until(lambda: self.alerts(server), "the alert")
        assert alert["labels"] == {
            "alertname": "MainspringIncident", "project": "flights", "incident": ticket.id, "severity": "ticket",
        }  # fmt: skip
        assert "All values of visibility are null." in alert["annotations"]["description"]
        page = msgspec.structs.replace(ticket, page=True)
        send(notifier, message(page, event="escalated"))

        def severities() -> list[str]:
            return [each["labels"]["severity"] for each in self.alerts(server)]

        wait_until(lambda: severities() == ["page"], "the escalated alert")
        send(notifier, message(page, event="closed"))
        wait_until(lambda: severities() == [], "the end of the alert")
