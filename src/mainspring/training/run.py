"""The run: where a training function writes down what it does."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.core.time import Clock
from mainspring.registry.ports import Tracking

_LONGEST_PARAM = 6000  # characters: what MLflow's store keeps


class Run:
    """One training run. What is logged is buffered in order, and written every second, at the end and on an exception.

    Used as a context: on an ordinary exit nothing is closed yet (whoever opened the run finishes it); on an exception
    the run is marked FAILED, on an interrupt KILLED.

    Args:
        prefix: Goes before every name that is logged, such as `"baseline."`.
    """

    def __init__(
        self,
        tracking: Tracking,
        run_id: str,
        clock: Clock,
        *,
        seed: int,
        prefix: str = "",
        flush_every_s: float = 1.0,
    ) -> None:
        self.id = run_id
        self.seed = seed
        self._tracking = tracking
        self._clock = clock
        self._prefix = prefix
        self._flush_every_s = flush_every_s
        self._metrics: list[tuple[str, float, int, int]] = []
        self._params: dict[str, str] = {}
        self._logged: dict[str, str] = {}
        self._failure: Exception | None = None
        self._buffer = threading.Lock()
        self._writing = threading.Lock()
        self._closing = threading.Event()
        self._flusher: threading.Thread | None = None

    def log_metric(self, name: str, value: float, step: int = 0) -> None:
        """Write down one number.

        Raises:
            Invalid: It is NaN or infinite, or no number.
        """
        self.log_metrics({name: value}, step)

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Write down several numbers, in order, all of them or, if one is wrong, none. Raises as `log_metric` does."""
        at = self._clock.now()
        numbers = [(self._name(name), _number(name, value, step), int(step), at) for name, value in values.items()]
        with self._buffer:
            self._metrics += numbers
        self._raise_earlier()

    def log_param(self, name: str, value: Any) -> None:
        """Write down a choice, as text. The same again changes nothing.

        Raises:
            Invalid: It was written down with another value, or is longer than 6,000 characters.
        """
        self.log_params({name: value})

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Write down several choices, all or none. Raises as `log_param` does."""
        texts = {self._name(name): str(value) for name, value in values.items()}
        with self._buffer:
            for name, text in texts.items():
                before = self._logged.get(name, text)
                if before != text:
                    raise Invalid(f"Parameter {name!r} is {before!r} in this run and cannot become {text!r}.")
                if len(text) > _LONGEST_PARAM:
                    raise Invalid(
                        f"Parameter {name!r} has {len(text)} characters; a run keeps {_LONGEST_PARAM}.",
                        fix="log what it was made of instead.",
                    )
            self._logged.update(texts)
            self._params.update(texts)
        self._raise_earlier()

    def child(self, prefix: str) -> Run:
        """Return the same run with `prefix` before every name. Use it as a context of its own."""
        return Run(
            self._tracking,
            self.id,
            self._clock,
            seed=self.seed,
            prefix=self._prefix + prefix,
            flush_every_s=self._flush_every_s,
        )

    def flush(self) -> None:
        """Write what is buffered now.

        Raises:
            MainspringError: The store refused, now or at an earlier flush in the background.
        """
        with self._writing:
            with self._buffer:
                metrics, self._metrics = self._metrics, []
                params, self._params = self._params, {}
            if metrics or params:
                self._tracking.log(self.id, params=params, metrics=metrics)
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Run:
        self._flusher = threading.Thread(target=self._flush_often, name=f"run-{self.id}", daemon=True)
        self._flusher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._flusher is not None:
            self._flusher.join()
        if error is None:
            self.flush()
            return
        with suppress(Exception):  # the first error is the one to report
            self.flush()
        if not self._prefix:
            with suppress(Exception):
                self._tracking.finish(self.id, "KILLED" if kind is KeyboardInterrupt else "FAILED", self._clock.now())

    def _name(self, name: str) -> str:
        return self._prefix + name

    def _raise_earlier(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _flush_often(self) -> None:
        while not self._closing.wait(self._flush_every_s):
            try:
                self.flush()
            except Exception as error:  # told to the training function at its next word
                self._failure = error
                return


def _number(name: str, value: float, step: int) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise Invalid(f"Metric {name!r} at step {step} is {value!r}, which is no number.") from None
    if not math.isfinite(number):
        raise Invalid(
            f"Metric {name!r} at step {step} is {number}.",
            fix="look for a division by zero, a too large learning rate, or nulls in the features.",
        )
    return number
