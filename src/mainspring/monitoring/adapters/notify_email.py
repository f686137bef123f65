"""Messages by e-mail: SMTP with STARTTLS or TLS, plain text."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from urllib.parse import urlsplit

from mainspring.core.deadlines import closing_after
from mainspring.core.errors import Denied, Invalid, Unavailable
from mainspring.core.settings import Receiver
from mainspring.monitoring.notify.ports import Message
from mainspring.monitoring.notify.wording import lines, subject, title

_PORTS = {"smtp": 587, "smtps": 465}
_HELLO = "mainspring.invalid"  # the name of this machine is nobody's concern


class EmailNotifier:
    """Sends plain text to the addresses of the settings; `smtp://` uses STARTTLS, unless clear text is allowed."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def send(self, message: Message, *, within_s: float) -> None:
        receiver, where = self._receiver, f"The receiver {self._receiver.name!r}"
        try:
            with self._connected(within_s) as server, closing_after(_socket(server), within_s):
                if receiver.user:
                    server.login(receiver.user, receiver.secret)
                refused = server.send_message(self._written(message), receiver.sender, list(receiver.to))
        except smtplib.SMTPAuthenticationError as error:
            raise Denied(
                f"{where} refused the log-in: {error.smtp_code}.", authenticated=True,
                fix="correct user and secret in its settings.",
            ) from None  # fmt: skip
        except (smtplib.SMTPSenderRefused, smtplib.SMTPRecipientsRefused, smtplib.SMTPNotSupportedError) as error:
            raise Invalid(f"{where} refused: {_said(error)}.", fix="correct its settings.") from None
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise Unavailable(
                f"{where} did not accept the message: {_said(error)}.", fix="see whether it runs."
            ) from None
        if refused:
            raise Invalid(f"{where} refused {sorted(refused)}.", fix="correct the addresses in its settings.")

    def _connected(self, within_s: float) -> smtplib.SMTP:
        parts = urlsplit(self._receiver.url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        context = ssl.create_default_context(cafile=self._receiver.ca or None)
        if self._receiver.cert:
            context.load_cert_chain(self._receiver.cert, self._receiver.cert_key or None, password=lambda: b"")
        if parts.scheme == "smtps":
            return smtplib.SMTP_SSL(host, port, _HELLO, timeout=within_s, context=context)
        server = smtplib.SMTP(host, port, _HELLO, timeout=within_s)
        try:
            if not self._receiver.in_clear:
                server.starttls(context=context)
        except BaseException:
            server.close()
            raise
        return server

    def _written(self, message: Message) -> EmailMessage:
        made = EmailMessage()
        made["From"], made["To"] = self._receiver.sender, ", ".join(self._receiver.to)
        made["Subject"] = subject(message)
        made["Message-ID"] = f"<{message.id}@{_HELLO}>"
        first = message.notices[0].incident.id
        made["References"] = f"<{first}@{_HELLO}>"  # messages of an incident are one thread
        made["Auto-Submitted"] = "auto-generated"
        parts = [
            "\n".join([*([title(each), ""] if len(message.notices) > 1 else []), *lines(each, message)])
            for each in message.notices
        ]
        made.set_content("\n\n".join(parts) + "\n")
        return made


def _socket(server: smtplib.SMTP) -> ssl.SSLSocket:
    found = server.sock
    assert found is not None
    return found  # type: ignore[return-value]


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__
