"""Streams: landing them and materialising what landed, in the foreground or in threads of the worker."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.time import SECOND
from mainspring.data.model import Source
from mainspring.data.streams.declaring import FIRST, NEXT, STARTS, Stream
from mainspring.data.streams.decoding import Decoding
from mainspring.data.streams.landing import Landed, Lander
from mainspring.data.streams.recent import Recent
from mainspring.features.functions.model import DerivedSource
from mainspring.features.functions.process import FunctionFailed
from mainspring.features.materialise import Materialiser
from mainspring.operations.auditing import audit, begun
from mainspring.operations.features.deriving import derive_from
from mainspring.operations.streams.members import REPORT_S, report
from mainspring.project import Project
from mainspring.registry.processes import process_name

STARTED = "stream.start"
_log = logging.getLogger(__name__)


class StreamRun:
    """Lands one stream and materialises its source's views, in one thread.

    Args:
        owner: Name of this worker; by default the machine, the process and a number.
    """

    def __init__(self, project: Project, stream: Stream, owner: str = "") -> None:
        self.stream = stream
        self._project = project
        self.owner = owner or process_name()
        self._lander = lander_of(project, stream, self.owner)
        # One of its own: a long rebuild of another view does not delay this stream.
        self._materialiser = Materialiser(project.lake, project.online, project.clock, locks=project.locks)
        self._counts = dict.fromkeys(("messages", "rows", "quarantined", "dead_letters"), 0)
        self._recent = Recent()
        self._through: int | None = None
        self._reported = self._next_s = 0.0
        self._behind = False  # whether a batch landed that is not materialised

    def step(self, wait_s: float = 0.0) -> Landed | None:
        """Land one batch and make it readable; return it, None if there was no message.

        Raises:
            MainspringError: As `Lander.step` and `Materialiser.run`; the next step goes on.
        """
        problem = ""
        try:
            time.sleep(max(0.0, self._next_s - time.monotonic()))
            asked, begun_s = self._project.wall.now(), time.monotonic()
            landed = self._lander.step(wait_s)
            full = landed is not None and landed.messages >= self.stream.batch_rows
            self._next_s = begun_s + (0.0 if full else self.stream.every_us / SECOND)
            self._behind |= landed is not None
            if self._behind:
                self._materialise()
                self._behind = False
            if landed is not None:
                self._count(landed)
            elif self.reads:
                self._through = asked
        except MainspringError as error:
            problem = str(error)
            raise
        finally:
            self._report(problem)
        return landed

    @property
    def reads(self) -> bool:
        """Whether any partition is this worker's."""
        return bool(self._lander.epochs)

    def close(self) -> None:
        """Give up the partitions and release the memory."""
        with suppress(MainspringError):
            self._lander.release()
        self._materialiser.close()

    def _materialise(self) -> None:
        """Compute the source's derived rows and all views over it; a failing function stops only views that need it."""
        failure: FunctionFailed | None = None
        try:
            derive_from(self._project, self.stream.name)
        except FunctionFailed as error:
            failure = error
        horizon = self._project.settings.materialise_every_us * 5 // 4
        for view in self._project.definitions.views.values():
            if _reads(view.source, self.stream.source):
                self._materialiser.run(view, horizon=horizon, gradually=True)
        if failure is not None:
            raise failure

    def _count(self, landed: Landed) -> None:
        for name, value in (
            ("messages", landed.messages), ("rows", landed.rows), ("quarantined", landed.quarantined),
            ("dead_letters", landed.letters),
        ):  # fmt: skip
            self._counts[name] += value
        self._recent.add(landed.events, landed.accepted, self._project.wall.now())
        if landed.messages:
            self._through = int(landed.accepted.max())

    def _report(self, problem: str) -> None:
        if time.monotonic() - self._reported < REPORT_S and not problem:
            return
        self._reported = time.monotonic()
        through = self._through if self.reads else None
        report(
            self._project,
            self.stream.name,
            self.owner,
            [self._recent],
            through=through,
            problem=problem,
            counts=self._counts,
        )


def lander_of(project: Project, stream: Stream, owner: str) -> Lander:
    """Return the lander of a stream of the project.

    Raises:
        NotFound, Invalid, MissingExtra: As `Decoding`.
    """
    return Lander(
        stream,
        Decoding(stream, project.settings.root),
        log=project.streams,
        lake=project.lake,
        ingestor=project.ingestor,
        store=project.stream_store,
        locks=project.locks,
        wall=project.wall,
        keyings=project.definitions.keyings(stream.name),
        owner=owner,
    )


def land_to_the_end(project: Project, names: Sequence[str], stop: threading.Event) -> dict[str, int]:
    """Land streams until no message is left, or `stop` is set; return source -> the number of messages.

    Raises:
        NotFound: The source has no stream; or as `StreamRun.step`.
    """
    counts = {}
    for name in names:
        run = StreamRun(project, project.definitions.stream(name))
        try:
            audit(project, STARTED, f"source/{name}", f"to its end, by {run.owner}")
            counts[name] = 0
            while not stop.is_set() and (landed := run.step()) is not None:
                counts[name] += landed.messages
        finally:
            run.close()
    return counts


class StreamThreads:
    """A thread per declared stream, which lands it until it is no longer declared.

    Args:
        names: Sources of the streams; by default of all, as they are declared at the time.
    """

    def __init__(self, project: Project, names: Sequence[str] = ()) -> None:
        self._project = project
        self._names = names
        self._running: dict[str, tuple[str, threading.Event, threading.Thread]] = {}

    def keep(self) -> None:
        """Start threads of new streams, and of those that changed; end the others."""
        definitions = self._project.definitions
        contents = definitions.contents()
        wanted = {
            name: f"{contents['stream', name]} {contents['source', name]} {definitions.keyings(name)}"
            for name in self._names or definitions.streams
        }
        for name, (content, stop, thread) in list(self._running.items()):
            if wanted.get(name) != content:
                stop.set()
            if not thread.is_alive():
                del self._running[name]
        for name, content in wanted.items():
            if name not in self._running:
                stop = threading.Event()
                thread = threading.Thread(
                    target=self._go,
                    args=(self._project.definitions.stream(name), stop),
                    name=f"stream {name}",
                    daemon=True,
                )
                self._running[name] = content, stop, thread
                thread.start()

    def end(self, wait_s: float = 5.0) -> None:
        """End all threads; a batch in the making is completed by the next worker."""
        for _, stop, _ in self._running.values():
            stop.set()
        deadline = time.monotonic() + wait_s
        for _, _, thread in self._running.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def _go(self, stream: Stream, stop: threading.Event) -> None:
        failures = 0
        run: StreamRun | None = None
        started = False
        while not stop.is_set():
            try:
                run = run or StreamRun(self._project, stream)
                if not started:
                    audit(self._project, STARTED, f"source/{stream.name}", f"by {run.owner}")
                    started = True
                run.step(wait_s=0.5)
                failures = 0
                if not run.reads:
                    stop.wait(0.5)
            except MainspringError as error:
                failures += 1
                _log.warning("stream of %s: %s", stream.name, error)
            except Exception:
                failures += 1
                _log.exception("stream of %s failed", stream.name)
            if failures:
                stop.wait(min(30.0, 0.5 * 2 ** min(failures, 6)))
        if run is not None:
            run.close()


def seek(project: Project, source: str, to: str) -> dict[int, int]:
    """Make a stream go on at the `first` message that the log holds, or at the `next` one; return the offsets.

    Messages that are passed over are never landed; those that are read again land again.

    Raises:
        NotFound: The source has no stream, or the log no such topic.
        Invalid: `to` is neither.
    """
    if to not in STARTS:
        raise Invalid(f"A stream cannot seek to {to!r}.", fix=f"use {FIRST} or {NEXT}.")
    stream = project.definitions.stream(source)
    log = project.streams
    spans = log.spans(stream.topic, log.partitions(stream.topic))
    offsets = {each: span.first if to == FIRST else span.next for each, span in spans.items()}
    with begun(project, "stream.seek", f"source/{source}") as done:
        lander_of(project, stream, f"seek.{os.getpid()}").seek(offsets)
        done(f"to the {to} messages of {stream.topic}")
    return offsets


def _reads(source: Source, stream: Source) -> bool:
    """Return whether a source is a stream's, or computed from it."""
    while source.name != stream.name and isinstance(source, DerivedSource):
        source = source.parent
    return source.name == stream.name
