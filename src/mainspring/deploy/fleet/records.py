"""Records that devices upload: each into the prediction log once, dated by the control plane's clock.

A record of the device's present start is dated by how long ago it was made; the device's clock does not matter. One
of an earlier start has only that clock: it is refused if it lies in the future, or before its version was published.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from mainspring.core.errors import Corrupt, Denied, Invalid, NotFound
from mainspring.core.json_content import decoded
from mainspring.deploy.edge.repository import Release
from mainspring.deploy.fleet.model import CLOCK_WRONG_US, Device, Uploaded
from mainspring.deploy.fleet.ports import FleetStore
from mainspring.ledger.model import Prediction
from mainspring.ledger.ports import PredictionLog, PredictionStore
from mainspring.ledger.sealing import hidden
from mainspring.security.signing import verify

_MOST_RECORDS = 1000
Value = bool | int | float | str | None


class PredictionRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="prediction"):
    """A row that a device predicted."""

    id: str
    boot: str
    mono_us: int
    at: int
    version: int
    row: dict[str, Value]
    outputs: dict[str, Value | list[float]]
    latency_us: int
    share: float = 1.0
    features: dict[str, Value] = {}


class ProfileRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="profile"):
    """A summary of all rows of a device over some time, for its page."""

    id: str
    boot: str
    mono_us: int
    at: int
    version: int | None
    rows: int
    errors: int
    columns: dict[str, dict[str, Any]]
    p50_us: int | None = None
    p99_us: int | None = None


Sparse = tuple[list[int], list[int]]  # places and counts of what is not 0


class SketchRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="sketch"):
    """Counts of rows that are not uploaded one by one, in the bins of their version; see `mainspring_edge.sketches`.

    `at` and `mono_us` are those of its first row; `dropped` of the rows were dropped from a full queue.
    """

    id: str
    boot: str
    mono_us: int
    at: int
    version: int
    rows: int
    counts: list[list[int]]
    bins: list[Sparse]
    sums: list[list[float]]
    products: list[float]
    latencies: Sparse
    dropped: int = 0


Record = PredictionRecord | ProfileRecord | SketchRecord


class Counted(NamedTuple):
    """Additions of a delivery to the sketches.

    Attributes:
        waiting: Sketches for the monitor's store, encoded.
        days: Of the device: start of the day -> the sketches of all of its rows, encoded.
        refused: Number of sketches that are not in the bins of their version.
        rows: Number of rows in the others; `dropped` of them were dropped from a full queue.
    """

    waiting: Sequence[bytes] = ()
    days: Mapping[int, bytes] = {}
    refused: int = 0
    rows: int = 0
    dropped: int = 0


class Privacy(NamedTuple):
    """Treatment of what identifies a person in the records of a release.

    Attributes:
        names: Names of such inputs and features; `None` if nobody can tell, and all are taken for such.
        encrypted: Whether the log keeps their values, encrypted; else they are left out.
    """

    names: Collection[str] | None = ()
    encrypted: bool = True


Count = Callable[[Device, Sequence[Prediction], Sequence[tuple[SketchRecord, int, Release]]], Counted]


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """Numbered records of a queue, in order, with the device's clock when they were sent."""

    project: str
    device: str
    queue: str
    boot: str
    mono_us: int
    at: int
    records: list[tuple[int, Record]]


class Intake:
    """Takes deliveries of one project's devices. One at a time for each device.

    Args:
        releases: Returns the published version of a package, to date and to name what it predicted.
        now: Clock, UTC epoch microseconds.
        count: Returns what predictions, and sketches with the instants of their first rows, add to the sketches.
        privacy: Returns how a release's personal values are treated.
    """

    def __init__(
        self,
        project: str,
        store: FleetStore,
        log: PredictionLog,
        predictions: PredictionStore,
        releases: Callable[[str], Mapping[int, Release]],
        now: Callable[[], int],
        count: Count = lambda *_: Counted(),
        privacy: Callable[[Release], Privacy] = lambda _: Privacy(),
    ) -> None:
        self._project, self._store, self._log, self._predictions = project, store, log, predictions
        self._releases, self._now, self._count, self._privacy = releases, now, count, privacy

    def take(self, device_id: str, body: bytes, signature: str) -> Uploaded:
        """Take a delivery, and return how far the device's queue is taken.

        Raises:
            Denied: The device is not registered, or did not sign this.
            Invalid: It cannot be read, or is another project's or device's.
            StorageFull: No space; the device sends it again.
        """
        device = self._store.device(device_id)
        if device is None:
            raise Denied(f"There is no device {device_id!r}.", fix="register it: `mainspring edge register`.")
        _check(device, body, signature)
        delivery = read_delivery(body)
        if (delivery.project, delivery.device) != (self._project, device_id):
            raise Invalid(
                f"The delivery is of device {delivery.device!r} of project {delivery.project!r}; this is "
                f"{device_id!r} of {self._project!r}."
            )
        before = self._store.upload(device_id, delivery.queue)
        fresh = [(number, record) for number, record in delivery.records if number > before.until]
        if not fresh:
            return before
        last = fresh[-1][0]
        self._store.take(msgspec.structs.replace(before, begun=max(before.begun, last)))
        predictions, sketches, refused, profile = self._read(device, delivery, [record for _, record in fresh])
        doubtful = {record.id for number, record in fresh if number <= before.begun}
        self._log.append(
            [self._hidden(each, of) for each, of in predictions if each.id not in doubtful or not self._there(each.id)]
        )
        counted = self._count(device, [each for each, _ in predictions], sketches)
        refused += counted.refused
        after = msgspec.structs.replace(
            before,
            until=last,
            begun=last,
            taken=before.taken + len(fresh) - refused,
            refused=before.refused + refused,
            last_at=self._now(),
            profile=profile or before.profile,
            sketched=before.sketched + counted.rows,
            dropped=before.dropped + counted.dropped,
        )
        self._store.take(after, counted.waiting, counted.days)
        return after

    def _read(
        self, device: Device, delivery: Delivery, records: Sequence[Record]
    ) -> tuple[list[tuple[Prediction, Release]], list[tuple[SketchRecord, int, Release]], int, dict[str, Any] | None]:
        """Return the predictions, the sketches, the number of refused records, and the newest profile."""
        releases, now = self._releases(device.package), self._now()
        predictions, refused, profile = list[tuple[Prediction, Release]](), 0, None
        sketches: list[tuple[SketchRecord, int, Release]] = []
        for record in records:
            release = releases.get(record.version) if record.version is not None else None
            at = dated(record, delivery, now, 0 if release is None else release.published_at)
            if at is not None and isinstance(record, ProfileRecord):
                profile = {**msgspec.to_builtins(record), "at": at, "columns": self._impersonal(record, release)}
            elif at is None or release is None:
                refused += 1
            elif isinstance(record, SketchRecord):
                sketches.append((record, at, release))
            elif isinstance(record, PredictionRecord):
                predictions.append((_prediction(record, device, release, at), release))
        return predictions, sketches, refused, profile

    def _hidden(self, prediction: Prediction, release: Release) -> Prediction:
        names, encrypted = self._privacy(release)
        return hidden(prediction, names, self._log.sealer if encrypted else None)

    def _impersonal(self, record: ProfileRecord, release: Release | None) -> dict[str, Any]:
        """Return the summaries of columns that identify nobody: that of one row has its values."""
        names = None if release is None else self._privacy(release).names
        return {name: each for name, each in record.columns.items() if names is not None and name not in names}

    def _there(self, id: str) -> bool:
        try:
            self._predictions.find(id)
        except NotFound:
            return False
        return True


def read_delivery(body: bytes) -> Delivery:
    """Return a delivery.

    Raises:
        Invalid: It cannot be read, or its numbers do not grow.
    """
    try:
        delivery = decoded(body, Delivery)
    except msgspec.MsgspecError as error:
        raise Invalid(f"The delivery cannot be read: {error}.", fix="upgrade mainspring-edge on the device.") from None
    numbers = [number for number, _ in delivery.records]
    if numbers != sorted(set(numbers)) or len(numbers) > _MOST_RECORDS:
        raise Invalid(
            f"The delivery has {len(numbers)} records; their numbers must grow, and {_MOST_RECORDS} are the most."
        )
    if any(not _is_id(record.id) for _, record in delivery.records):
        raise Invalid("A record has no id of 32 hexadecimal digits.")
    return delivery


def dated(record: Record, delivery: Delivery, now: int, published_at: int) -> int | None:
    """Return when a record was made, UTC epoch microseconds; `None` where nobody can tell."""
    if record.boot == delivery.boot:
        return now - (delivery.mono_us - record.mono_us) if record.mono_us <= delivery.mono_us else None
    return record.at if published_at - CLOCK_WRONG_US <= record.at <= now + CLOCK_WRONG_US else None


def _prediction(record: PredictionRecord, device: Device, release: Release, at: int) -> Prediction:
    return Prediction(
        id=record.id,
        endpoint=release.endpoint or device.package,
        model=device.package,
        version=str(record.version),
        digest=release.bundle,
        at=at,
        keys={},
        request=record.row,
        features=record.features or record.row,
        statuses={},
        outputs=record.outputs,
        latency_us=record.latency_us,
        principal=f"device:{device.id}",
        share=record.share if 0.0 < record.share <= 1.0 else 1.0,
    )


def _check(device: Device, body: bytes, signature: str) -> None:
    try:
        verify(bytes.fromhex(device.key), bytes.fromhex(signature), body)
    except (Corrupt, ValueError) as error:
        raise Denied(
            f"The delivery is not signed by the key of device {device.id!r}.",
            fix="register the key that the device has now, under another id if there are two of them.",
        ) from error


def _is_id(text: str) -> bool:
    return len(text) == 32 and all(each in "0123456789abcdef" for each in text)
