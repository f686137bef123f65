"""Sources, ingestion reports, and versions of the data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

from mainspring.core.definition_registry import declare, expect, expect_each
from mainspring.core.errors import Invalid
from mainspring.core.ids import LONGEST, check_id
from mainspring.core.schema import DType, Schema, check_schema
from mainspring.core.time import DAY, parse_duration
from mainspring.data.checks import (
    Check,
    fresh,
    in_range,
    length,
    matches,
    none_of,
    not_null,
    one_of,
    read_checks,
    unique,
)

if TYPE_CHECKING:
    import pyarrow as pa

# Columns that ingestion adds to a source's own.
VISIBLE_AT = "_visible_at"  # timestamp: earliest time at which the row could be known
SEQUENCE = "_seq"  # int64: order of arrival, unique in the table
BATCH = "_batch"  # string: the batch that brought the row
SEALED_PREFIX = "_sealed_"  # + column, binary: its encrypted values; see `data.sealed`
RECORD_PREFIX = "_record_"  # + keying name, bool: whether the row counts for last values (cases: record-setting rule)
SUPERSEDED_AT = "_superseded_at"  # timestamp, for a source with an id: time at which a newer version became visible
SUPERSEDED_BY = "_superseded_by"  # int64: the `_seq` of that version
DEAD_LETTERS_SUFFIX = "__dead_letters"  # table of a stream's messages that are no rows
REASON = "_reason"  # string, in the quarantine only: reason of the failure
QUARANTINE_SUFFIX = "__quarantine"
TILES_PREFIX = "tiles__"  # derived tables, which can be rebuilt
HEADS_PREFIX = "heads__"  # derived as well: each entity's newest row, for ingestion
DERIVED_PREFIXES = (TILES_PREFIX, HEADS_PREFIX)
EVALUATIONS_PREFIX = "evaluations__"  # tables of collections: measures of their builds, without texts
CHUNKS_PREFIX = "chunks__"  # tables of collections: the chunks of a source's documents, with their vectors

KeyValue = str | int | bool

_PUBLIC_KEY = re.compile("[0-9a-f]{64}")

_BESIDE = (QUARANTINE_SUFFIX, DEAD_LETTERS_SUFFIX)
_MOST_DAYS = 36_500
_MOST_EPSILON, _MOST_ROWS_EACH = 1_000, 1_000_000

__all__ = [
    "BATCH",
    "CHUNKS_PREFIX",
    "DEAD_LETTERS_SUFFIX",
    "DERIVED_PREFIXES",
    "EVALUATIONS_PREFIX",
    "HEADS_PREFIX",
    "QUARANTINE_SUFFIX",
    "REASON",
    "RECORD_PREFIX",
    "SEALED_PREFIX",
    "SEQUENCE",
    "SUPERSEDED_AT",
    "SUPERSEDED_BY",
    "TILES_PREFIX",
    "VISIBLE_AT",
    "Check",
    "DatasetCommit",
    "Erased",
    "IngestReport",
    "KeyValue",
    "Privacy",
    "Retention",
    "Source",
    "SourceColumn",
    "TableScan",
    "TableVersion",
    "chunks_table",
    "fresh",
    "in_range",
    "length",
    "matches",
    "none_of",
    "not_null",
    "one_of",
    "source_of",
    "unique",
]


def source_of(table: str) -> str:
    """Return the source to which a table, its quarantine or its table of dead letters belongs."""
    return next((table.removesuffix(suffix) for suffix in _BESIDE if table.endswith(suffix)), table)


def chunks_table(collection: str) -> str:
    """Return the name of a collection's table of chunks."""
    return f"{CHUNKS_PREFIX}{collection}"


@dataclass(frozen=True, eq=False)
class SourceColumn:
    """One column of a source, such as a model's label: `arrivals.late`."""

    source: Source
    column: str

    @property
    def name(self) -> str:
        """The full name, such as `arrivals.late`."""
        return f"{self.source.name}.{self.column}"


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a source's rows are kept after their event time, and what for.

    Args:
        days: After so many days, counted to the end of the day (UTC), rows are deleted from every version.
        purpose: What the rows are kept for until then; for the receipts.
        columns: Columns whose values are removed instead, while the rows stay.

    Raises:
        Invalid: `days` is no whole number of at least 1.
    """

    days: int
    _: KW_ONLY
    purpose: str = ""
    columns: Sequence[str] = ()

    def __post_init__(self) -> None:
        expect(self.days, int, "The days of a retention", fix="give whole days: days=90.")
        if self.days is True or not 1 <= self.days <= _MOST_DAYS:
            raise Invalid(f"A retention of {self.days!r} days is not possible.", fix="give whole days: days=90.")
        object.__setattr__(self, "columns", (self.columns,) if isinstance(self.columns, str) else tuple(self.columns))

    def before(self, now: int) -> int:
        """Return the event time before which rows are past it, both UTC epoch microseconds."""
        return now // DAY * DAY - self.days * DAY


@dataclass(frozen=True, slots=True)
class Privacy:
    """Limits of what is published of a source, with differential privacy for its subjects.

    Args:
        budget: Sum of epsilon of all that is ever published of it.
        keys: Columns that identify a subject, who is protected as a whole.
        each: Number of a subject's rows that count.

    Raises:
        Invalid: The budget is not positive, no key is named, or no row counts.
    """

    budget: float
    _: KW_ONLY
    keys: Sequence[str]
    each: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", (self.keys,) if isinstance(self.keys, str) else tuple(self.keys))
        if not (0 < self.budget <= _MOST_EPSILON and self.keys and 1 <= self.each <= _MOST_ROWS_EACH):
            raise Invalid(
                f"A privacy budget of {self.budget} for {list(self.keys)} with {self.each} rows each is not possible.",
                fix='write ms.Privacy(budget=1.0, keys=["customer"], each=1).',
            )


@dataclass(frozen=True, eq=False)
class Source:
    """A stream of facts, ingested into one table.

    Columns are available as attributes: `arrivals.late` is `SourceColumn(arrivals, "late")`.

    Args:
        name: Name of the source, an id.
        schema: Column names and types, without `event_time` and `recorded_time`, which are always timestamps.
        event_time: Column with the time at which a fact became true in the world.
        recorded_time: Column with the time at which a fact could be known; by default its event time.
        lag: Availability delay: duration after `recorded_time` until a row is really available.
        id: Column or columns that identify a fact (kept as a tuple). Rows with one id are versions of one fact; at any
            time only the newest visible version counts. Without an id each row is a fact of its own.
        retracted: A Boolean column; a version with true states that the fact never existed.
        checks: Rules that each row must satisfy: checks of this package, or pandera schemas, which are translated (kept
            as a tuple of `Check`). A failing row goes to the quarantine with the reason.
        pii: Columns that identify a person.
        retention: How long rows, or values of some columns, are kept; several, if they differ by column. By default for
            ever.
        privacy: What may be published of the source by `mainspring data publish`; by default nothing.
        signed_by: Public keys (Ed25519, 64 hexadecimal digits). Rows count only if one of them signed their file;
            others go to the quarantine (`data.signed_files`). By default nothing has to be signed.

    Raises:
        Invalid: A name, type or key is not valid, a check names an unknown column or cannot be translated, `lag` is not
            a duration, or the columns of `id`, `retracted` or `retention` are unsuitable.
    """

    name: str
    _: KW_ONLY
    schema: Schema
    event_time: str
    recorded_time: str | None = None
    lag: str | int = 0
    id: str | Sequence[str] = ()
    retracted: str | None = None
    checks: Sequence[Any] = ()
    description: str = ""
    owner: str = ""
    pii: Sequence[str] = ()
    retention: Retention | Sequence[Retention] = ()
    privacy: Privacy | None = None
    signed_by: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_id(self.name, "source", longest=LONGEST - len(QUARANTINE_SUFFIX))
        if self.name.endswith(_BESIDE):
            raise Invalid(
                f"Source {self.name!r} would share a table with the quarantine or the dead letters of another source.",
                fix="rename it.",
            )
        if self.name.startswith((*DERIVED_PREFIXES, CHUNKS_PREFIX, EVALUATIONS_PREFIX)):
            raise Invalid(f"Source {self.name!r} would share a table with derived data.", fix="rename it.")
        check_schema(self.schema, f"Source {self.name!r}")
        check_schema(dict.fromkeys(self.times, DType.Timestamp), f"Source {self.name!r}")
        if len({name.casefold() for name in self.columns}) < len(self.columns):
            raise Invalid(
                f"Source {self.name!r} has columns that differ in case only: {sorted(self.columns)}.",
                fix="rename one of them: tables are case-insensitive.",
            )
        for time in self.times:
            if time in self.schema:
                raise Invalid(
                    f"Source {self.name!r} lists its time {time!r} in the schema too.",
                    fix="leave it out of the schema.",
                )
        object.__setattr__(self, "checks", tuple(read_checks(self.checks, self.columns, self.name)))
        unknown = set(self.pii) - set(self.columns)
        if unknown:
            raise Invalid(
                f"Source {self.name!r} has checks or marks on unknown columns: {sorted(unknown)}.",
                fix=f"its columns are {sorted(self.columns)}.",
            )
        keys = (self.signed_by,) if isinstance(self.signed_by, str) else tuple(self.signed_by)
        expect_each(keys, str, f"A key of source {self.name!r}", fix="give the public keys as text.")
        if wrong := [key for key in keys if not _PUBLIC_KEY.fullmatch(key)]:
            raise Invalid(
                f"Source {self.name!r} is signed by {wrong[0]!r}, which is no public key.",
                fix="give its 64 hexadecimal digits, as `mainspring models key` and `mainspring data sign` print them.",
            )
        object.__setattr__(self, "signed_by", keys)
        _ = self.lag_us
        columns = (self.id,) if isinstance(self.id, str) else self.id
        expect_each(columns, str, f"The id of source {self.name!r}", fix='name a column, or a list: id="payment".')
        object.__setattr__(self, "id", tuple(columns))
        if self.retracted is not None:
            fix = 'name a Boolean column: retracted="void".'
            expect(self.retracted, str, f"The retraction of source {self.name!r}", fix=fix)
        self._check_id()
        self._check_retention()
        self._check_privacy()
        declare(self)

    def _check_privacy(self) -> None:
        if self.privacy is None:
            return
        expect(self.privacy, Privacy, f"The privacy of source {self.name!r}", fix="give an ms.Privacy.")
        missing = sorted({*self.privacy.keys} - self.columns.keys())
        if missing or self.id:
            raise Invalid(
                f"Source {self.name!r} can publish nothing: its subjects have the key {missing}, which is no column, "
                "or its rows are versions of facts.",
                fix=f"name keys of {sorted(self.columns)}, of a source without id.",
            )

    def _check_retention(self) -> None:
        found = (self.retention,) if isinstance(self.retention, Retention) else self.retention
        expect_each(
            found, Retention, f"The retention of source {self.name!r}", fix="write retention=ms.Retention(days=90)."
        )
        fixed = {*self.times, *self.id, self.retracted}
        unfit = sorted({name for each in found for name in each.columns} - (self.columns.keys() - fixed))
        if unfit:
            raise Invalid(
                f"Source {self.name!r} cannot remove values of {unfit[0]!r} alone: it is no column, or times and "
                "identity of facts depend on it.",
                fix="name other columns, or let the rows be deleted.",
            )
        named = [each.columns for each in found]
        if named.count(()) > 1:
            raise Invalid(
                f"Source {self.name!r} has several times after which its rows are deleted.",
                fix="declare the longest alone; for a purpose that ends earlier, name `columns`.",
            )

    def _check_id(self) -> None:
        unfit = [name for name in self.id if self.columns.get(name) in (None, DType.Float32, DType.Float64)]
        if unfit or len(set(self.id)) < len(self.id):
            raise Invalid(
                f"Source {self.name!r} has the id {list(self.id)}, but {(unfit or list(self.id))[0]!r} cannot "
                "identify a fact: it is not a column, a fraction, or listed twice.",
                fix=f"name columns of text, whole numbers or instants; there are {sorted(self.columns)}.",
            )
        if self.retracted is not None and (not self.id or self.schema.get(self.retracted) != DType.Boolean):
            raise Invalid(
                f"Source {self.name!r} has the invalid retraction column {self.retracted!r}.",
                fix="name a Boolean column of the schema, and the id of the facts to retract.",
            )
        clash = [check for check in self.checks if check.kind == "unique" and set(check.columns) <= set(self.id)]
        if clash:
            raise Invalid(
                f"Source {self.name!r} has the check {clash[0]}, but versions of a fact share its id.",
                fix="remove the check: only one version of a fact counts at a time.",
            )

    @property
    def retentions(self) -> tuple[Retention, ...]:
        """The retentions, none or several."""
        return (self.retention,) if isinstance(self.retention, Retention) else tuple(self.retention)

    @property
    def versioning(self) -> tuple[tuple[str, ...], str | None] | None:
        """The id and the retraction column; `None` if each row is a fact of its own."""
        return (tuple(self.id), self.retracted) if self.id else None

    @property
    def times(self) -> tuple[str, ...]:
        return (self.event_time,) if self.recorded_time is None else (self.event_time, self.recorded_time)

    @property
    def columns(self) -> Schema:
        """Every column that a row must provide, with its type; the times come first."""
        return {**dict.fromkeys(self.times, DType.Timestamp), **self.schema}

    @property
    def lag_us(self) -> int:
        return parse_duration(self.lag)

    def __getattr__(self, name: str) -> SourceColumn:
        if not name.startswith("_") and name in self.columns:
            return SourceColumn(self, name)
        raise AttributeError(f"Source {self.name!r} has no column {name!r}; it has {sorted(self.columns)}.")


@dataclass(frozen=True, slots=True)
class IngestReport:
    """Result of one ingestion.

    `rows` were stored in the table, `quarantined` in the quarantine, and `already` had been stored before; the three
    add up to the rows received. `reasons` counts the quarantined rows by reason (a row may have several).
    """

    source: str
    rows: int
    quarantined: int
    already: int
    version: int
    reasons: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()  # schema changes made first, because the source's declaration changed


@dataclass(frozen=True, slots=True)
class TableScan:
    """Readable form of one table version: its Parquet files or, in memory, its rows.

    Exactly one of `files` and `rows` is set. Files may lack columns that were added later, and a table without rows has
    no file: `schema` is the version's complete schema (`data.duck.register` provides every column of it). `opens`
    has the columns that are encrypted in some files, in columns beside them, with functions that return their values.
    """

    version: int
    files: tuple[str, ...] | None = None
    rows: pa.Table | None = None
    schema: pa.Schema | None = None
    opens: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class TableVersion:
    """Metadata of one table version, without its rows.

    `restored` is the newest version, up to this one, that a restore made; None if the table was never restored. `files`
    are the names of the files that hold the version's rows. A name never stands for other rows, so versions with the
    same names and schema have the same rows.
    """

    version: int
    rows: int
    schema: pa.Schema
    restored: int | None = None
    files: tuple[str, ...] = ()

    @property
    def landed(self) -> bool:
        """True if ingestion fills the table, which can then be restored. Other tables are logs, or derived."""
        return {SEQUENCE, BATCH} <= set(self.schema.names)


@dataclass(frozen=True, slots=True)
class TableListing:
    """Names of a table's files at one moment.

    Attributes:
        version: The newest.
        data: Names of files outside of the log, which never change.
        log: Names of files of the log in their order; an erasure may change them.
        last: Content of the pointer to the newest checkpoint, empty if there is none.
    """

    version: int
    data: list[str]
    log: list[str]
    last: bytes


@dataclass(frozen=True, slots=True)
class Erased:
    """Result of an erasure from a table; true if it had any of the rows.

    Attributes:
        rows: Rows of the newest version.
        past: Files of older versions, or entries about them, that had such rows.
    """

    rows: int = 0
    past: int = 0

    def __bool__(self) -> bool:
        return self.rows > 0 or self.past > 0


@dataclass(frozen=True, slots=True)
class DatasetCommit:
    """One version of each table, under one id (the digest of its content and parent)."""

    id: str
    versions: Mapping[str, int]
    parent: str | None
    message: str
    at: int  # UTC epoch microseconds
