"""Answers of an endpoint's versions for equal inputs: what a request allows, and what is kept of an answer.

An answer is kept as the model gave it, for one caller's account or for all, and of its input a digest alone. Each reply
is shaped, logged and counted as any other. None outlives an erasure: whom an input is about is not known, so all are
forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import numpy as np

from mainspring.core.time import parse_duration
from mainspring.security.quota import ALL
from mainspring.serving.caching.answers import Answers
from mainspring.serving.model import Cache

HIT, JOINED, MISS, REFUSED = "hit", "joined", "miss", "refused"
OUTCOMES = (HIT, JOINED, MISS, REFUSED)
_VALUE = 64  # bytes of a text beside its characters
_MAX_AGE = re.compile(r"max-age=\"?([0-9]{1,9})\"?", re.ASCII)
_SAID = {
    HIT: "mainspring; hit",
    JOINED: "mainspring; fwd=miss; collapsed",
    MISS: "mainspring; fwd=miss",
    REFUSED: "mainspring; fwd=request",
}


class Reuse(msgspec.Struct, eq=False):
    """Permission of a request to be answered by an earlier answer, and what became of it.

    Attributes:
        owner: Whose answers it may get.
        max_age_us: The oldest answer that it takes; negative: none. `None`: any.
        store: Whether its own answer may be kept.
        mark: Of the last erasure when it came.
        key: Digest of its input; empty while it is not known.
        flight: The requests that wait for its answer, or that it waits with; `None` without any.
        outcome: One of `OUTCOMES`; empty while it is not known.
    """

    owner: str
    max_age_us: int | None = None
    store: bool = True
    mark: str = ""
    key: bytes = b""
    flight: Any = None
    outcome: str = ""

    @property
    def refuses(self) -> bool:
        """Whether it takes no answer that was asked for before."""
        return self.max_age_us is not None and self.max_age_us < 0

    @property
    def cached(self) -> bool:
        """Whether its answer was computed for another request."""
        return self.outcome in (HIT, JOINED)

    @property
    def status(self) -> str:
        """The field Cache-Status of its reply: https://www.rfc-editor.org/rfc/rfc9211."""
        return _SAID.get(self.outcome, "mainspring; fwd=bypass")


class Response(msgspec.Struct, frozen=True, eq=False):
    """A model's answer to one request.

    Attributes:
        outputs: Output -> array of shape (rows, ...).
        unusual: Its unusual rows, each with the feature by which it is; `None` if rows are not flagged.
        screen: By which they were found.
    """

    outputs: Mapping[str, np.ndarray[Any, Any]]
    unusual: Mapping[int, str] | None
    screen: object

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        texts = [array for array in self.outputs.values() if array.dtype.hasobject]
        return sum(array.nbytes for array in self.outputs.values()) + sum(
            _VALUE + len(str(value)) for array in texts for value in array.flat
        )


class Responses:
    """Answers that a process keeps for one endpoint.

    Args:
        now: Microseconds of a clock that is never set.
        erasures: Returns the mark of the last erasure. With another mark all is forgotten.

    Attributes:
        outcomes: Number of answered requests by what became of them.
    """

    def __init__(self, declared: Cache, now: Callable[[], int], erasures: Callable[[], str] = str) -> None:
        self.declared = declared
        self._answers = Answers(declared.most_bytes, parse_duration(declared.ttl), now)
        self._erasures = erasures
        self._mark = erasures()
        self.outcomes = dict.fromkeys(OUTCOMES, 0)

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def nbytes(self) -> int:
        return self._answers.nbytes

    @property
    def evicted(self) -> int:
        """How many answers left for want of room."""
        return self._answers.evicted

    def asked(self, owner: str, cache_control: str = "") -> Reuse:
        """Return what a request allows.

        Args:
            owner: The caller's account, or key without one.
            cache_control: The field Cache-Control of the request: https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.
        """
        reuse = Reuse("" if self.declared.by == ALL else owner, mark=self._current())
        if cache_control:
            for each in cache_control.lower().split(","):
                directive = each.strip()
                if directive in ("no-cache", "no-store"):
                    reuse.max_age_us = -1
                    reuse.store = reuse.store and directive != "no-store"
                elif (age := _MAX_AGE.fullmatch(directive)) and reuse.max_age_us is None:
                    reuse.max_age_us = int(age[1]) * 1_000_000
        return reuse

    def find(self, key: bytes, reuse: Reuse, screen: object) -> Response | None:
        """Return an answer that a request takes; `None` if there is none."""
        self._current()
        found: Response | None = self._answers.get(key, reuse.max_age_us)
        return found if found is not None and found.screen is screen else None

    def keep(self, key: bytes, reuse: Reuse, response: Response) -> None:
        """Keep an answer, unless a person's data were erased meanwhile."""
        if self._current() == reuse.mark:
            self._answers.put(key, reuse.owner, response, response.nbytes)

    def count(self, answered: Iterable[Reuse | None]) -> None:
        """Count requests that were answered."""
        for reuse in answered:
            if reuse is not None and reuse.outcome:
                self.outcomes[reuse.outcome] += 1

    def _current(self) -> str:
        if (mark := self._erasures()) != self._mark:
            self._mark = mark
            self._answers.erase()
        return self._mark
