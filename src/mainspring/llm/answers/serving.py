"""Answers of the version that its champion, or a rollout, decides for each question.

Commands and gateways ask an `OpenAnswers`: a version is chosen there, and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from mainspring.core.error_codes import codes_of
from mainspring.core.errors import DeadlineExceeded, MainspringError, Unavailable
from mainspring.core.time import SECOND, Clock
from mainspring.ledger.model import Assigned
from mainspring.ledger.ports import PredictionLog
from mainspring.ledger.recording import Recorder
from mainspring.llm.answers.chain import AnswerChain
from mainspring.llm.answers.declaring import Answers
from mainspring.llm.answers.model import CitedAnswer, Question
from mainspring.llm.answers.speaking import Noted
from mainspring.llm.model import Call
from mainspring.serving.model import Route
from mainspring.serving.plane.arms import FailureBuffer
from mainspring.serving.plane.lane import monotonic_us
from mainspring.serving.plane.live import Router, key_unit


class OpenAnswers:
    """A chain of answers in all its versions. For an event loop; routes and bundles are read in threads.

    Args:
        route: Returns the route of the chain by its aliases and rollouts, `None` to answer as it is declared. It raises
            NotFound if no version may answer.
        version: Returns a version's chain; of "" as it is declared.
        log: Where failures of a rollout's arms are recorded.

    Attributes:
        fresh_us: Time after which the route is read again.
    """

    def __init__(
        self,
        declared: Answers,
        route: Callable[[], Route | None],
        version: Callable[[str], AnswerChain],
        log: PredictionLog,
        clock: Clock,
    ) -> None:
        self.declared, self.fresh_us = declared, SECOND
        self._read, self._open, self._clock, self._log = route, version, clock, log
        self._failures = FailureBuffer(log)
        self._route: Route | None = None
        self._read_us: int | None = None
        self._reading = asyncio.Lock()
        self._versions: dict[str, AnswerChain] = {}

    async def answer(
        self,
        question: Question,
        call: Call,
        *,
        noted: Noted | None = None,
        within_us: int | None = None,
    ) -> CitedAnswer:
        """Return the answer of the version that is chosen for a question. See `AnswerChain.answer`.

        Args:
            noted: As of `AnswerChain.answer`.
            within_us: Time from the begin of the call until which the answer has to be there.

        Raises:
            NotFound: No version may answer, or one needs what is not declared any more.
            DeadlineExceeded: There is no answer in time.
        """
        started = monotonic_us()
        version, assigned = await self.chosen(question, call)
        try:
            chain = await self.version(version)
            left_s = None if within_us is None else max(0, call.begun + within_us - monotonic_us()) / SECOND
            try:
                async with asyncio.timeout(left_s):
                    return await chain.answer(question, call, assigned=assigned, noted=noted)
            except TimeoutError:
                raise DeadlineExceeded(
                    f"{self.declared.name!r} gave no answer within {(within_us or 0) / SECOND:g} s.",
                    retry_after_ms=1000,
                ) from None
        except Exception as error:
            if assigned is not None:
                self._failed(error, version, assigned, call, monotonic_us() - started)
            raise

    async def chosen(self, question: Question, call: Call) -> tuple[str, Assigned | None]:
        """Return the version that answers a question, "" for that which is declared, and its arm of a rollout.

        Raises:
            NotFound: No version may answer.
        """
        route = await self._current()
        if route is None:
            return "", None
        if not route.rollout:
            return route.arms[0].version, None
        arm, weight, unit = Router(route.endpoint, route.arms, route.salt).assign(_unit(route, question, call))
        return arm.version, Assigned(route.rollout, weight, unit)

    async def close(self) -> None:
        """Write what waits."""
        self.flush()

    def flush(self) -> None:
        """Write what waits."""
        self._failures.flush()

    async def _current(self) -> Route | None:
        async with self._reading:
            now = monotonic_us()
            if self._read_us is None or now - self._read_us >= self.fresh_us:
                try:
                    self._route = await asyncio.to_thread(self._read)
                except Unavailable:
                    if self._read_us is None:
                        raise
                self._read_us = now
            return self._route

    async def version(self, version: str) -> AnswerChain:
        """Return the chain of a version; of "" as it is declared.

        Raises:
            NotFound: It is not recorded, or needs what is not declared any more.
        """
        if version not in self._versions:
            self._versions[version] = await asyncio.to_thread(self._open, version)
        return self._versions[version]

    def _failed(self, error: Exception, version: str, assigned: Assigned, call: Call, took_us: int) -> None:
        own = self.declared
        recorder = Recorder(
            self._log, endpoint=own.name, model=own.model_name, version=version, digest=own.digest, policy=own.log
        )
        found = recorder.failure(
            at=self._clock.now(),
            kind=type(error).__name__ if isinstance(error, MainspringError) else "InternalError",
            status=codes_of(error).http,
            latency_us=took_us,
            assigned=assigned,
            principal=call.caller.id,
            request_id=call.id,
        )
        if found is not None:
            self._failures.add(found)


def _unit(route: Route, question: Question, call: Call) -> bytes:
    """Return what a question sticks to its version by; see `Route.assign`."""
    if route.assign != "key":
        return os.urandom(16)
    keys = question.keys
    if route.by in keys:
        return key_unit([keys[route.by]])
    if question.session:
        return question.session.encode("utf-8", "surrogatepass")
    return key_unit(keys[name] for name in sorted(keys)) if keys else call.caller.id.encode()
