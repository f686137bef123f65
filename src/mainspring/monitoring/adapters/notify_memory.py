"""Messages kept in memory, for tests and experiments."""

from __future__ import annotations

from mainspring.core.errors import MainspringError
from mainspring.monitoring.notify.ports import Message


class MemoryNotifier:
    """Keeps the messages; `error` is raised instead while it is set."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.error: MainspringError | None = None

    def send(self, message: Message, *, within_s: float) -> None:  # noqa: ARG002  (nothing waits)
        if self.error is not None:
            raise self.error
        self.sent.append(message)
