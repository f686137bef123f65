"""A device of a fleet: predicts, updates itself, reports, and uploads what it predicted.

`predict` is called by the device's program; `tick` by one thread, again and again. Nothing that fails in `tick` reaches
`predict`: a device without network, or with a wrong clock, predicts with the package it has.
"""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from mainspring_edge.errors import EdgeError, InvalidRow
from mainspring_edge.health import Health, Limits
from mainspring_edge.link import Desired, Link, read_desired, signed
from mainspring_edge.memory import Memory, check_device_id, device_key
from mainspring_edge.queue import HOUR_US, Queue
from mainspring_edge.slots import Load, NoPackage, Slots, Started
from mainspring_edge.updates import Unreachable, Updates
from mainspring_edge.upload import Uploads

_RETRY_S = 15.0, 3600.0
_UPDATING, _TRIAL, _RUNNING, _EMPTY = "updating", "trial", "running", "empty"


class Predicts(Protocol):
    """The part of `mainspring_edge.Device` that predicts."""

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]: ...


@dataclass(frozen=True, slots=True)
class Setup:
    """What a device is told once, by `mainspring edge register`.

    Attributes:
        key: Public key of the project, 64 hexadecimal digits.
        root: First root metadata of the repository.
        broker: `mqtts://user:password@host:port`.
        control: Address of the control plane, to which predictions are uploaded; empty: they are not.
        ca: PEM file of the authorities of all three servers; empty: the machine's.
        certificate: PEM files of a client certificate and its key, shown to all three; or empty.
        share: Share of predictions that are uploaded row by row; the others are sketched.
        most_queued_bytes: The queue's bound.
        limits: Limits of a package on trial.
    """

    project: str
    device: str
    package: str
    key: str
    root: bytes
    repository: str
    broker: str
    control: str = ""
    ca: str = ""
    certificate: tuple[str, str] | None = None
    share: float = 1.0
    most_queued_bytes: int = 16 << 20
    report_every_s: float = 60.0
    upload_every_s: float = 60.0
    profile_every_s: float = 3600.0
    limits: Limits = Limits()  # noqa: RUF009  (frozen)


class Agent:
    """One device, in a folder of its own.

    Args:
        load: `mainspring_edge.load`.
        now: Clock, UTC epoch microseconds. It may be wrong.
        monotonic: Clock, seconds.

    Raises:
        Refused: The setup is wrong.
    """

    def __init__(
        self,
        folder: Path,
        setup: Setup,
        load: Load,
        *,
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        check_device_id(setup.device)
        self._setup, self._now, self._monotonic = setup, now, monotonic
        self._memory = Memory(folder)
        self._key = device_key(folder)
        self._slots = Slots(self._memory, load, setup.key, setup.package)
        tls: dict[str, Any] = {"ca": setup.ca or None, "certificate": setup.certificate}
        self._updates = Updates(self._memory, setup.repository, setup.root, now=now, **tls)
        self._queue = Queue(folder / "queue.db", most_bytes=setup.most_queued_bytes)
        self._link = Link(setup.broker, setup.project, setup.device, monotonic=monotonic, **tls)
        about = {"project": setup.project, "device": setup.device}
        self._uploads = Uploads(setup.control, about, self._key, **tls) if setup.control else None
        self._boot, self._changing = os.urandom(8).hex(), threading.Lock()
        self._running: Started | None = None
        self._desired: Desired | None = None
        self._health, self._period = Health(), Health()
        self._since = self._report_at = self._upload_at = self._retry_at = monotonic()
        self._profile_at = self._since + setup.profile_every_s
        self._wait_s, self._problem, self._reported = _RETRY_S[0], "", ""
        try:
            self._run(self._slots.start())
        except NoPackage as error:
            self._problem = str(error)

    @property
    def version(self) -> int | None:
        """The version that runs."""
        return None if self._running is None else self._running.device.version

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        """Return output -> one value a row, as `Device.predict`, and record the rows.

        Raises:
            NoPackage: This device has no package yet.
            InvalidRow: A row is wrong.
        """
        running, health, period = self._running, self._health, self._period
        if running is None:
            raise NoPackage(f"This device has no package yet. {self._problem}")
        device: Any = running.device
        begun = time.perf_counter()
        try:
            outputs: dict[str, list[Any]] = device.predict(rows)
        except InvalidRow:  # the caller's fault, not the package's
            raise
        except Exception:
            for each in (health, period):
                each.failed(len(rows))
            raise
        took_us = int((time.perf_counter() - begun) * 1e6)
        for each in (health, period):
            each.answered(rows, outputs, took_us)
        if self._uploads is not None:
            self._record(rows, outputs, took_us, device)
        return outputs

    def tick(self) -> None:
        """Do what is due: read desired states, judge a trial, update, report, upload."""
        for message in self._link.poll():
            self._wanted(message)
        self._judge()
        self._update()
        self._profile()
        self._report()
        self._upload()

    def run(self, stop: threading.Event, every_s: float = 0.5) -> None:
        """Tick until `stop` is set."""
        try:
            while not stop.is_set():
                self.tick()
                stop.wait(every_s)
        finally:
            self.close()

    def close(self) -> None:
        self._link.close()
        self._queue.close()

    def _wanted(self, message: bytes) -> None:
        setup = self._setup
        try:
            desired = read_desired(
                message, trusted_key=setup.key, project=setup.project, device=setup.device, package=setup.package
            )
        except EdgeError as error:
            self._problem = f"a desired state was refused: {error}"
            return
        state = self._memory.state
        if desired.revision < state.revision:
            self._problem = f"a desired state of revision {desired.revision} was refused: {state.revision} was seen."
            return
        # What the project signed at an instant was signed before now: a floor for this device's clock.
        self._memory.keep(revision=desired.revision, time_us=max(state.time_us, desired.at))
        if desired != self._desired:
            self._desired, self._retry_at, self._wait_s = desired, self._monotonic(), _RETRY_S[0]

    def _judge(self) -> None:
        """End the trial of the running package, or go back."""
        if self._running is None or not self._memory.state.trial:
            return
        wrong, limits = self._health.verdict(self._setup.limits), self._setup.limits
        over = self._monotonic() - self._since >= limits.trial_s
        unsure = self._health.unsure(limits)
        if over and unsure and self._desired is not None and self._desired.version != self.version:
            wrong = wrong or "rows failed in its trial, and another version is wanted"
        if wrong:
            try:
                self._run(self._slots.go_back(wrong))
            except NoPackage as error:
                self._problem = str(error)
                self._slots.confirm()  # there is nothing better
        elif over and not unsure:
            self._slots.confirm()

    def _update(self) -> None:
        desired = self._desired
        if desired is None or desired.version == self.version or self._monotonic() < self._retry_at:
            return
        if str(desired.version) in self._memory.state.failed or self._memory.state.trial:
            return
        self._report(state=_UPDATING)
        try:
            if self._slots.other(desired.version):
                self._run(self._slots.switch())
            else:
                self._run(self._slots.install(desired.version, self._fetch(desired)))
            self._problem = ""
        except (EdgeError, OSError) as error:
            self._problem = str(error)
            longer = self._wait_s if isinstance(error, Unreachable) else max(self._wait_s, _RETRY_S[1] / 12)
            self._retry_at = self._monotonic() + longer * random.uniform(0.5, 1.5)  # noqa: S311
            self._wait_s = min(_RETRY_S[1], 2 * longer)

    def _fetch(self, desired: Desired) -> Callable[[Path, Path | None], None]:
        return lambda folder, before: self._updates.fetch(desired.package, desired.version, folder, before)

    def _run(self, started: Started) -> None:
        content = getattr(started.device, "sketch", None)
        if content is not None:
            self._queue.know(started.device.version, content)
        with self._changing:
            self._running, self._health, self._since = started, Health(), self._monotonic()
        if started.went_back:
            self._problem = started.went_back

    def _record(
        self, rows: Sequence[Mapping[str, Any]], outputs: Mapping[str, Sequence[Any]], took_us: int, device: Any
    ) -> None:
        share = self._setup.share
        chosen = [random.random() < share for _ in rows]  # noqa: S311
        is_sketched = getattr(device, "sketch", None) is not None
        if not any(chosen) and not is_sketched:
            return
        clock, features = self._clock(), device.features(rows)
        records = [
            {
                **clock,
                "kind": "prediction",
                "id": os.urandom(16).hex(),
                "version": device.version,
                "row": {name: _plain(value) for name, value in rows[at].items()},
                "features": {name: _plain(values[at]) for name, values in features.items()},
                "outputs": {name: _plain(values[at]) for name, values in outputs.items()},
                "latency_us": took_us,
                "share": 1.0 if is_sketched else share,  # it stands for no other row: those are in the sketch
            }
            for at in range(len(rows))
            if chosen[at] or is_sketched
        ]
        if is_sketched:
            self._queue.skip([record for record, is_one in zip(records, chosen, strict=True) if not is_one])
            records = [record for record, is_one in zip(records, chosen, strict=True) if is_one]
        if records:
            self._queue.add(records)

    def _profile(self) -> None:
        """Queue a profile of the last period; it holds every row, whatever share is recorded."""
        if self._monotonic() < self._profile_at:
            return
        self._profile_at = self._monotonic() + self._setup.profile_every_s
        period, self._period = self._period, Health()
        if period.rows and self._uploads is not None:
            found = {"kind": "profile", "id": os.urandom(16).hex(), "version": self.version, **period.profile()}
            self._queue.add([{**self._clock(), **found}])

    def _report(self, state: str | None = None) -> None:
        """Report if something changed, or if it is time."""
        memory = self._memory.state
        state = state or (_EMPTY if self._running is None else _TRIAL if memory.trial else _RUNNING)
        changed = f"{state} {self.version} {memory.revision} {self._problem} {sorted(memory.failed)}"
        if changed == self._reported and self._monotonic() < self._report_at:
            return
        if not self._link.connected:
            return
        sequence = memory.sequence + 1
        health = self._health
        body = {
            **self._clock(),
            "kind": "reported",
            "project": self._setup.project,
            "device": self._setup.device,
            "package": self._setup.package,
            "version": self.version,
            "state": state,
            "revision": memory.revision,
            "failed": dict(memory.failed),
            "problem": self._problem[:500],
            "rows": health.rows,
            "errors": health.errors,
            "p99_us": health.quantile_us(0.99),
            "queue": asdict(self._queue.depth()),
            "sequence": sequence,
        }
        if self._link.report(signed(body, self._key)):
            self._memory.keep(sequence=sequence)
            self._reported, self._report_at = changed, self._monotonic() + self._setup.report_every_s

    def _upload(self) -> None:
        if self._uploads is None or self._monotonic() < self._upload_at:
            return
        self._queue.pack(self._now() // HOUR_US)
        try:
            while self._uploads.send(self._queue, self._clock()):
                pass
        except EdgeError as error:
            self._problem = f"records are not uploaded: {error}"
        self._upload_at = self._monotonic() + self._setup.upload_every_s * random.uniform(0.8, 1.2)  # noqa: S311

    def _clock(self) -> dict[str, Any]:
        """Return the time by this device's clock, and since it started, by which the control plane dates a record."""
        return {"at": self._now(), "boot": self._boot, "mono_us": int(self._monotonic() * 1e6)}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: an instant as text, a number that is not finite as null."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value
