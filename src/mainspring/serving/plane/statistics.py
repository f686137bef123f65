"""Statistics of each version, as Triton's extension has them."""

from __future__ import annotations

from typing import Any

from mainspring.core.time import Clock


class Statistics:
    """Counts of one (endpoint, version), as Triton's statistics extension has them.

    https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md. Triton's
    `perf_analyzer` reads it twice and says what of a latency was queueing and what the model. Durations are summed in
    microseconds, over requests unless said otherwise.

    Args:
        clock: Says when the last request was answered.
    """

    __slots__ = ("_batches", "_clock", "_failed", "_found", "_last", "_queue", "_rows", "_succeeded")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._succeeded = [0, 0]  # requests, microseconds
        self._failed = [0, 0]
        self._found = [0, 0]  # requests that were answered by an earlier answer
        self._queue = 0
        self._rows = 0
        self._last = 0  # milliseconds since the epoch
        self._batches: dict[int, list[float]] = {}  # rows -> batches, requests, then input, infer, output by batch

    def failed(self, took_us: int) -> None:
        """Count a request that was refused or that the model failed on."""
        self._failed[0] += 1
        self._failed[1] += took_us

    def ran(
        self,
        *,
        rows: int,
        requests: int,
        total_us: int,
        queue_us: int,
        input_us: float,
        infer_us: float,
        output_us: float,
    ) -> None:
        """Count a batch of `requests` that were answered.

        Args:
            total_us: From when each came until it was answered, summed over them; so is `queue_us`.
            input_us: What the batch took to read and put together, of which `infer_us` is the model, `output_us` the
                rest.
        """
        self._succeeded[0] += requests
        self._succeeded[1] += total_us
        self._queue += queue_us
        self._rows += rows
        self._last = self._clock.now() // 1000
        batch = self._batches.get(rows)
        if batch is None:
            batch = self._batches[rows] = [0, 0, 0.0, 0.0, 0.0]
        batch[0] += 1
        batch[1] += requests
        batch[2] += input_us
        batch[3] += infer_us
        batch[4] += output_us

    def found(self, *, rows: int, requests: int, total_us: int) -> None:
        """Count requests whose answers were computed for others; arguments as of `ran`."""
        self._succeeded[0] += requests
        self._succeeded[1] += total_us
        self._found[0] += requests
        self._found[1] += total_us
        self._rows += rows
        self._last = self._clock.now() // 1000

    def document(self, name: str, version: str) -> dict[str, Any]:
        """Return an entry of `model_stats`."""
        count = self._succeeded[0] - self._found[0]  # of those that ran
        batches = sorted(self._batches.items())
        # A request of a batch waited for all of it.
        stages = [sum(batch[place] * batch[1] / batch[0] for _, batch in batches) for place in (2, 3, 4)]
        names = ("compute_input", "compute_infer", "compute_output")
        return {
            "name": name,
            "version": version,
            "last_inference": self._last,
            "inference_count": self._rows,
            "execution_count": sum(int(batch[0]) for _, batch in batches),
            "inference_stats": {
                "success": _duration(*self._succeeded),
                "fail": _duration(self._failed[0], self._failed[1]),
                "queue": _duration(count, self._queue),
                **{stage: _duration(count, total) for stage, total in zip(names, stages, strict=True)},
                "cache_hit": _duration(*self._found),
                "cache_miss": _duration(0, 0),
            },
            "batch_stats": [
                {
                    "batch_size": rows,
                    **{stage: _duration(int(batch[0]), total) for stage, total in zip(names, batch[2:], strict=True)},
                }
                for rows, batch in batches
            ],
        }


def _duration(count: int, total_us: float) -> dict[str, int]:
    return {"count": count, "ns": int(total_us * 1000)}
