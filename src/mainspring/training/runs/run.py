"""Run handle: logging from a training function, buffered in order and written every second and on demand."""

from __future__ import annotations

import io
import math
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.time import Clock
from mainspring.registry.naming import check_names
from mainspring.registry.ports import Tracking
from mainspring.registry.processes import PERSON, STARTER, TEAM, TEAM_WHY, USER
from mainspring.registry.runs import ERROR, NAME, PARENT, error_text, process_tags
from mainspring.training.runs.failures import Failures, failures_of
from mainspring.training.runs.system import Sampler

Metric = tuple[str, float, int, int]  # name, value, step, instant in µs

_LONGEST_PARAM = 6000  # characters: the limit of MLflow's store
_LONGEST_TAG = 8000
_NEWEST = 200  # runs by which the failures of a training are estimated
_MANY = 20_000  # buffered metrics that trigger a write at once
_PATIENCE_S = 60.0  # seconds for which background writes retry an unavailable store


class Run:
    """One training run.

    Logged values are buffered in order, and written every second, at `flush`, at the end and on an exception; files are
    written at once. Values that `flush` has written survive a crash of the process.

    As a context manager: a normal exit does not close the run (its opener finishes it; a nested run finishes itself);
    an exception marks it FAILED, an interrupt KILLED.

    Args:
        flush_every_s: Seconds between writes of the buffer.
        system_every_s: Seconds between samples of processors, memory and GPUs; 0 for none.
        stays_open: Leave the run open at an error: another process decides how it ended.
    """

    def __init__(
        self,
        tracking: Tracking,
        run_id: str,
        clock: Clock,
        *,
        seed: int,
        flush_every_s: float = 1.0,
        system_every_s: float = 0.0,
        stays_open: bool = False,
    ) -> None:
        self.id = run_id
        self._stays_open = stays_open
        self.seed = seed
        self._tracking = tracking
        self._clock = clock
        self._flush_every_s = flush_every_s
        self._buffer = Buffer(tracking, run_id, every_s=flush_every_s)
        self._sampler = Sampler(self._sampled, system_every_s) if system_every_s else None
        self._logged: dict[str, str] = {}  # parameters
        self._names: set[str] = set()  # metric names that were already checked
        self._prefix = ""
        self._nested = False
        self._entered = ExitStack()
        self.withheld = ""  # reason to omit an error's message

    def failures(self) -> Failures:
        """Return the failures of the newest trainings of the store; none if it cannot be reached."""
        try:
            return failures_of(self._tracking.search(limit=_NEWEST))
        except MainspringError:
            return Failures()

    def log_metric(self, name: str, value: float, step: int = 0) -> None:
        """Log one number.

        Raises:
            Invalid: The value is NaN, infinite or not a number, or `name` is not a valid metric name.
        """
        self.log_metrics({name: value}, step)

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log several numbers, in order; none if one is invalid. Raises as `log_metric` does."""
        at, prefix, known = self._clock.now(), self._prefix, self._names
        new = [name for name in values if name not in known]
        if new:
            check_names(new, "metric")
            check_names([prefix + name for name in new], "metric")
        step = _step(step, values)
        numbers: list[Metric] = [
            (prefix + name, _number(name, value, step), step, at) for name, value in values.items()
        ]
        known.update(new)
        self._buffer.add(numbers)

    def log_param(self, name: str, value: Any) -> None:
        """Log a parameter as text. Logging the same value again has no effect.

        Raises:
            Invalid: The parameter has another value already, the text exceeds 6,000 characters, or `name` is not a
                valid parameter name.
        """
        self.log_params({name: value})

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Log several parameters, all or none. Raises as `log_param` does."""
        check_names(values, "parameter")
        texts = {self._prefix + name: str(value) for name, value in values.items()}
        for name, text in texts.items():
            before = self._logged.get(name, text)
            if before != text:
                raise Invalid(
                    f"Parameter {name!r} is {before!r} in this run and cannot become {text!r}.",
                    fix="log changing values as a metric with steps, or start a nested run: run.nested(...).",
                )
            if len(text) > _LONGEST_PARAM:
                raise Invalid(
                    f"Parameter {name!r} has {len(text)} characters; the maximum is {_LONGEST_PARAM}.",
                    fix="log its inputs instead, or the whole as a file: run.log_text.",
                )
        self._logged.update(texts)
        self._buffer.add(params=texts)

    def set_tag(self, name: str, value: Any) -> None:
        """Set a tag of the run, as text, replacing its value.

        Raises:
            Invalid: `name` is not a valid tag name or names who trains or pays, or the text exceeds 8,000 characters.
        """
        self.set_tags({name: value})

    def set_tags(self, values: Mapping[str, Any]) -> None:
        """Set several tags of the run, all or none. Raises as `set_tag` does."""
        check_names(values, "tag")
        texts = {self._prefix + name: str(value) for name, value in values.items()}
        if taken := sorted(texts.keys() & {USER, STARTER, PERSON, TEAM, TEAM_WHY}):
            what = "pays" if taken[0] in (TEAM, TEAM_WHY) else "trains"
            raise Invalid(f"The tag {taken[0]!r} names who {what}, and cannot be set.", fix="use another name.")
        for name, text in texts.items():
            if len(text) > _LONGEST_TAG:
                raise Invalid(
                    f"Tag {name!r} has {len(text)} characters; the maximum is {_LONGEST_TAG}.", fix="use run.log_text."
                )
        self._buffer.add(tags=texts)

    def log_artefact(self, name: str, content: bytes | str | Path) -> None:
        """Store a file with the run at once, replacing one of the same name.

        Args:
            name: Name of the artefact, such as `plots/roc.png`.
            content: The bytes, or the path of a file (a string is a path; `log_text` stores text).

        Raises:
            Invalid: `name` is not a valid file name.
            NotFound: The file does not exist.
        """
        kept = Path(content) if isinstance(content, str) else content
        self._tracking.log_artefact(self.id, self._prefix + name, kept)

    def log_text(self, name: str, text: str) -> None:
        """Store text with the run, as UTF-8. Raises as `log_artefact` does."""
        self._tracking.log_artefact(self.id, self._prefix + name, text.encode())

    def log_figure(self, name: str, figure: Any) -> None:
        """Store a figure: Matplotlib's in the format of the name's extension, Plotly's and others' as HTML.

        Raises:
            Invalid: The object is not a supported figure, or cannot be drawn in the name's format.
        """
        self.log_artefact(name, _drawn(name, figure))

    def prefixed(self, prefix: str) -> Run:
        """Return a view of the same run that puts `prefix` before every name; not a run of its own."""
        part = Run(self._tracking, self.id, self._clock, seed=self.seed)
        part._buffer, part._logged, part._prefix = self._buffer, self._logged, self._prefix + prefix
        return part

    def nested(self, name: str, *, params: Mapping[str, Any] | None = None, seed: int | None = None) -> Run:
        """Start a child run, such as a fold or a trial. Use it as a context manager, which finishes it.

        Args:
            name: Name of the run among its siblings.
            params: Initial parameters.
            seed: Seed of the child; by default this run's.
        """
        seed = self.seed if seed is None else seed
        model = self._tracking.get(self.id).model
        tags = {**process_tags(), PARENT: self.id, NAME: name, "seed": str(seed)}
        child = self._tracking.start(model, tags, self._clock.now())
        run = Run(self._tracking, child, self._clock, seed=seed, flush_every_s=self._flush_every_s)
        run._nested, run.withheld = True, self.withheld
        run.log_params(params or {})
        return run

    def active(self) -> AbstractContextManager[None]:
        """Direct the project's own `mlflow` calls and autologging into this run, inside the block."""
        return self._tracking.active(self.id)

    def aside(self, name: str) -> AbstractContextManager[None]:
        """Keep them out of this run inside the block, with autologging off: explicit calls log to a child run called
        `name`.
        """
        return self._tracking.aside(self.id, name)

    def flush(self) -> None:
        """Write the buffer; it is stored when this returns.

        Raises:
            MainspringError: This write, or an earlier one in the background, failed.
        """
        self._buffer.flush()

    def __enter__(self) -> Run:
        if not self._prefix:
            self._buffer.start()
            if self._sampler is not None:
                self._sampler.start()
        if self._nested:
            self._entered.enter_context(self.active())
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        with suppress(Exception):
            self._entered.close()
        if self._sampler is not None:
            self._sampler.stop()
        if not self._prefix:
            self._buffer.stop()
        if error is None:
            self.flush()
            if self._nested:
                self._tracking.finish(self.id, "FINISHED", self._clock.now())
            return
        with suppress(Exception):  # the first error is the one to report
            self.flush()
        if not self._prefix and not self._stays_open:
            status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            if status == "FAILED":
                with suppress(Exception):
                    self._tracking.log(self.id, tags={ERROR: error_text(error, withheld=self.withheld)})
            with suppress(Exception):
                self._tracking.finish(self.id, status, self._clock.now())

    def _sampled(self, values: Mapping[str, float], step: int) -> None:
        at = self._clock.now()
        with suppress(Exception):  # a store's error is raised in the training function, not in the sampler
            self._buffer.add([(name, value, step, at) for name, value in values.items()])


def _step(step: int, values: Mapping[str, float]) -> int:
    try:
        return step.__index__()
    except AttributeError:
        raise Invalid(
            f"The step of {sorted(values)} is {step!r}, which is not a whole number.", fix="count epochs or batches."
        ) from None


def _number(name: str, value: float, step: int) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise Invalid(
            f"Metric {name!r} at step {step} is {str(value)[:200]!r}, which is not a number.",
            fix="log a number; log text as a parameter or a tag: run.log_param, run.set_tag.",
        ) from None
    if not math.isfinite(number):
        raise Invalid(
            f"Metric {name!r} at step {step} is {number}.",
            fix="check for a division by zero, a too large learning rate, or nulls in the features.",
        )
    return number


def _drawn(name: str, figure: Any) -> bytes:
    if hasattr(figure, "savefig"):
        into = io.BytesIO()
        suffix = name.rpartition(".")[2]
        try:
            figure.savefig(into, format=suffix)
        except ValueError as error:
            raise Invalid(f"A figure cannot be drawn as {name!r}: {error}", fix="end the name with .png.") from error
        return into.getvalue()
    if hasattr(figure, "to_html"):
        return str(figure.to_html()).encode()
    raise Invalid(
        f"{type(figure).__name__} is not a figure: it has neither savefig nor to_html.",
        fix="draw it, then run.log_artefact.",
    )


class Buffer:
    """Buffer of a run's metrics, parameters and tags, between the training function and the store.

    After a failed write the content is kept, in order, for the next one; the store ignores duplicate metrics.
    """

    def __init__(self, tracking: Tracking, run_id: str, *, every_s: float, patience_s: float = _PATIENCE_S) -> None:
        self._tracking = tracking
        self._run_id = run_id
        self._every_s, self._patience_s = every_s, patience_s
        self._metrics: list[Metric] = []
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._failure: Exception | None = None
        self._adding = threading.Lock()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def add(
        self,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Append to the buffer.

        Raises:
            MainspringError: A background write failed; the new content is buffered nevertheless.
        """
        with self._adding:
            self._metrics += metrics
            if params:
                self._params.update(params)
            if tags:
                self._tags.update(tags)
            many = len(self._metrics) >= _MANY
        if many:
            self._wake.set()
        if self._failure is not None:
            raise self._failure

    def flush(self) -> None:
        """Write everything buffered before this call; it is stored when this returns.

        Raises:
            MainspringError: This write, or an earlier one in the background, failed.
        """
        self._write()
        if self._failure is not None:
            raise self._failure

    def start(self) -> None:
        """Start writing in the background."""
        self._thread = threading.Thread(target=self._write_often, name=f"run-{self._run_id}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop writing in the background; the buffer keeps its content."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _write(self) -> None:
        with self._writing:
            with self._adding:
                metrics, self._metrics = self._metrics, []
                params, self._params = self._params, {}
                tags, self._tags = self._tags, {}
            if not (metrics or params or tags):
                return
            try:
                self._tracking.log(self._run_id, params=params, metrics=metrics, tags=tags)
            except BaseException:
                with self._adding:
                    self._metrics[:0] = metrics
                    self._params = {**params, **self._params}
                    self._tags = {**tags, **self._tags}
                raise

    def _write_often(self) -> None:
        failing_since: float | None = None
        while True:
            self._wake.wait(self._every_s)
            if self._closing:
                return
            self._wake.clear()
            try:
                self._write()
                failing_since = None
            except Exception as error:  # raised in the training function's next call
                now = time.monotonic()
                failing_since = now if failing_since is None else failing_since
                may_come_back = isinstance(error, MainspringError) and error.retryable
                if not may_come_back or now - failing_since > self._patience_s:
                    self._failure = error
                    return
