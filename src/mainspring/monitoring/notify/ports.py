"""Port of messages: one delivery about one or several incidents."""

from __future__ import annotations

from typing import Protocol

import msgspec

from mainspring.monitoring.incidents.model import Incident


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one incident. `id` is the same in every try."""

    id: str
    event: str  # opened, reopened, escalated, closed, or open as a reminder
    at: int  # when the change was made, UTC epoch microseconds by the machine's clock
    incident: Incident


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery, often of one notice.

    Attributes:
        id: Idempotency key: the same while the notices are the same.
        project: The project's name.
        console: Address of the console, for links.
        now: Time of this try, UTC epoch microseconds by the machine's clock.
    """

    id: str
    project: str
    console: str
    now: int
    notices: tuple[Notice, ...]


class Notifier(Protocol):
    """Sends messages to one receiver, at least once: the receiver recognises a repeated id."""

    def send(self, message: Message, *, within_s: float) -> None:
        """Deliver a message.

        Args:
            within_s: Time after which the try is given up.

        Raises:
            Unavailable: The receiver did not answer in time, or not now.
            Denied: It refused the credentials.
            Invalid: It refused the message, or answered with a redirect, which is not followed.
        """
        ...
