"""Load on a gateway: threads that ask one after another, each over a connection that it keeps."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kit.depth import examples
from kit.waiting import wait_until

# Rest of a caller after each answer. Without it, callers and what answers them take all cores for as long as something
# else is waited for.
REST_S = examples(gate=0.03, deep=0.0)


@dataclass(frozen=True)
class Answered:
    """A reply of status 200, read at `at` (monotonic seconds)."""

    at: float
    took_s: float
    document: Any


@dataclass(frozen=True)
class Failure:
    """A request without a right answer, at `at` (monotonic seconds)."""

    thread: int
    at: float
    what: str


class Load:
    """Threads that ask one path until the block ends; a context manager.

    Args:
        connect: Opens a connection to the gateway.
        path: Of a POST.
        key: An API key that may.
        body: The body of a thread's n-th request, counted from 1.
        right: Whether the document of a reply is correct.
        pause_s: Time that a thread rests after each request.

    Attributes:
        lost: Requests whose connection was not made or broke.
        refused: Replies of another status than 200, or with a wrong document.
    """

    def __init__(
        self,
        connect: Callable[[], http.client.HTTPConnection],
        path: str,
        key: str,
        body: Callable[[int], bytes],
        *,
        right: Callable[[Any], bool] = lambda document: True,
        threads: int = 4,
        pause_s: float = REST_S,
    ) -> None:
        self.answered: list[Answered] = []
        self.lost: list[Failure] = []
        self.refused: list[Failure] = []
        self._connect, self._path, self._body, self._right = connect, path, body, right
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(threads)]

    @property
    def failures(self) -> list[Failure]:
        """All requests without a right answer."""
        return self.refused + self.lost

    def _run(self, thread: int) -> None:
        connection, number = self._connect(), 0
        while not self._stop.is_set():
            number += 1
            try:
                self._ask(connection, thread, number)
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(Failure(thread, time.monotonic(), repr(error)))
                connection.close()
                self._stop.wait(0.02)
            if self._pause_s:
                self._stop.wait(self._pause_s)
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, thread: int, number: int) -> None:
        began = time.monotonic()
        connection.request("POST", self._path, self._body(number), self._headers)
        reply = connection.getresponse()
        content, at = reply.read(), time.monotonic()
        if reply.status != 200:
            self.refused.append(Failure(thread, at, f"{reply.status} {content[:200]!r}"))
            return
        document = json.loads(content)
        if not self._right(document):
            self.refused.append(Failure(thread, at, f"wrong: {content[:200]!r}"))
        self.answered.append(Answered(at, at - began, document))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def until_answered(self, more: int) -> None:
        """Wait for as many more answers."""
        goal = len(self.answered) + more
        wait_until(lambda: len(self.answered) >= goal, f"{more} more answers")
