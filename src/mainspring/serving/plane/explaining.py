"""Explanations of predictions while their caller waits: exact ones only, in a thread of their own.

A thread takes one explanation after the other, so they never hold up the event loop or a model, and never take more
than one processor. Their number is limited by rows and by waiting requests. The first explanation of a version loads
its explainer, which is a copy of the model.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from mainspring.core.errors import DeadlineExceeded, Invalid, Overloaded
from mainspring.registry.bundles import Bundles
from mainspring.serving.explanation import Explanation, NotExplainable, explanations, takes_tensors
from mainspring.serving.plane.inference import Inference
from mainspring.serving.plane.lane import Answer, monotonic_us
from mainspring.serving.ports import Explainer, ExplainerLoader
from mainspring.serving.protocol.asked import Answered

MOST_ROWS = 32  # of one request
_MOST_WAITING = 16  # requests
_KEPT = 4  # explainers
_RETRY_MS = 200

_T = TypeVar("_T")


class Explaining:
    """Explains answers of the bundles that are served.

    Args:
        bundles: Store of verified bundles, by digest.
        load: Makes the explainer of a bundle.
    """

    def __init__(self, bundles: Bundles, load: ExplainerLoader) -> None:
        self._bundles = bundles
        self._load = load
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self._known: OrderedDict[str, Explainer | NotExplainable] = OrderedDict()  # used by the thread only
        self._waiting = 0

    async def infer(self, inference: Inference, deadline_us: float) -> tuple[Answered, list[Explanation]]:
        """Run an inference and explain its answers, one explanation for each row.

        A model without an exact explanation is refused before it is asked for a prediction.

        Raises:
            NotExplainable: The model has no exact explanation.
            Invalid: The request has too many rows.
            Overloaded: Too many requests wait for an explanation.
            DeadlineExceeded: The explanation takes too long; the prediction may have been made.
            As of `Inference.submit` and of its outcome.
        """
        runtime, count = inference.lane.runtime, inference.rows
        if runtime.tensors:
            raise takes_tensors(runtime.manifest.model)
        if count > MOST_ROWS:
            raise Invalid(f"The request has {count} rows; {MOST_ROWS} can be explained at once.")
        await self._run(lambda: self._explainer(runtime.digest), deadline_us)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        inference.submit(future, deadline_us=deadline_us)
        try:
            answer = await future
            if answer.fallback:
                raise Invalid(
                    "A row of the request is unlike the training rows: its answer is the endpoint's fallback, which "
                    "has no explanation.",
                    fix="ask for the answer alone.",
                )
            answered = inference.answered(answer)
        except asyncio.CancelledError:
            inference.cancel()
            raise
        except Exception as error:
            inference.failed(error)
            raise
        inference.replied()
        inputs = answer.inputs
        explained = await self._run(lambda: self._explain(runtime.digest, inputs, count), deadline_us)
        inference.lane.recorder.explained(
            answer.ids,
            [each.kept() for each in explained],
            inputs,
            at=answer.work.at,
            request_id=inference.asked.id or "",
        )
        return answered, explained

    def stop(self) -> None:
        """Drop waiting explanations and release the explainers. Idempotent."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], _T], deadline_us: float) -> _T:
        if self._waiting >= _MOST_WAITING:
            raise Overloaded("Too many requests wait for an explanation.", retry_after_ms=_RETRY_MS)
        left_s = (deadline_us - monotonic_us()) / 1e6
        running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        self._waiting += 1
        running.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(running), max(0.0, left_s))
        except TimeoutError:
            running.cancel()  # unless it has begun
            raise DeadlineExceeded("The explanation was not ready by the deadline.", retry_after_ms=_RETRY_MS) from None

    def _done(self, running: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        if not running.cancelled():
            running.exception()  # nobody may wait for it any more

    def _explain(self, digest: str, inputs: Any, rows: int) -> list[Explanation]:
        explainer = self._explainer(digest)
        found = explainer.explain(inputs, rows)
        return explanations(found, explainer.method, list(explainer.inputs), list(explainer.outputs))

    def _explainer(self, digest: str) -> Explainer:
        known = self._known.get(digest)
        if known is None:
            bundle = self._bundles.load(digest)
            try:
                known = self._load(bundle)
            except NotExplainable as error:
                known = error
            self._known[digest] = known
            while len(self._known) > _KEPT:
                _, oldest = self._known.popitem(last=False)
                if not isinstance(oldest, NotExplainable):
                    oldest.close()
        self._known.move_to_end(digest)
        if isinstance(known, NotExplainable):
            raise known.again()
        return known
