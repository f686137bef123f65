"""A SQLite file in WAL mode, shared by threads and processes: its connections, transactions and errors."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mainspring.core.errors import Corrupt, MainspringError, StorageFull, Unavailable
from mainspring.core.files import is_full, sync_folder

_PATIENCE_S = 10.0


class SqliteFile:
    """A file that is private to its owner. Each thread has its own connection; `close` closes them all.

    Args:
        what: Noun for messages: "event log".
        damaged: The remedy where the file is damaged.
        pragmas: Settings of each connection beyond WAL.
    """

    def __init__(self, path: Path, *, what: str, damaged: str, pragmas: Sequence[str] = ()) -> None:
        self.path = path
        self._what, self._damaged, self._pragmas = what, damaged, pragmas
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    def create(self, schema: str) -> None:
        """Create the file with its tables where they are missing; its name is durable.

        Raises:
            Corrupt: The file is not a database.
            Unavailable: It cannot be opened.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.touch(mode=0o600)
        except OSError as error:
            raise Unavailable(f"The {self._what} {self.path} cannot be opened: {error.strerror}.") from error
        with self.errors():
            self.connection().executescript(schema)
        sync_folder(self.path.parent)

    def connection(self) -> sqlite3.Connection:
        """Return this thread's connection, which does not survive a fork."""
        if getattr(self._local, "process", None) != os.getpid():
            connection = sqlite3.connect(self.path, timeout=10.0, isolation_level=None, check_same_thread=False)
            with self._lock:
                self._open.append(connection)
            for pragma in (*self._pragmas, "journal_mode=WAL"):  # a size of pages is chosen before it
                connection.execute(f"PRAGMA {pragma}")
            self._local.connection = connection
            self._local.process = os.getpid()
        held: sqlite3.Connection = self._local.connection
        return held

    @contextmanager
    def transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """Context of a transaction; of kind DEFERRED it reads one state of the file, and blocks no writer."""
        with self.errors():
            connection = self.connection()
            connection.execute(f"BEGIN {kind}")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def rewrite(self) -> None:
        """Write the file anew; see `rewrite`."""
        with self.errors():
            rewrite(self.path)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Context in which SQLite's errors become `Corrupt`, `StorageFull` or `Unavailable`."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self.translated(error) from error

    def close(self) -> None:
        with self._lock:
            for connection in self._open:
                with suppress(sqlite3.Error):
                    connection.close()
            self._open.clear()
            self._local = threading.local()

    def translated(self, error: sqlite3.Error | UnicodeDecodeError) -> MainspringError:
        """Return the error that `errors` raises for one of SQLite's."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        # Texts are valid UTF-8: other bytes were not written by this package.
        undecodable = isinstance(error, UnicodeDecodeError) or "Could not decode" in str(error)
        if undecodable or code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return Corrupt(f"The {self._what} {self.path} is damaged: {error}.", fix=self._damaged)
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and is_full(self.path)):
            return StorageFull(
                f"No space left for the {self._what} {self.path}.", fix="free some space and run the command again."
            )
        return Unavailable(f"The {self._what} {self.path} did not respond: {error}.")


def rewrite(path: Path) -> None:
    """Write a SQLite file anew, without any bytes of what was deleted or replaced, and empty its log.

    Raises:
        Unavailable: A process reads an old state of the file for seconds.
    """
    connection = sqlite3.connect(path, timeout=60.0, isolation_level=None)
    try:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("VACUUM")
        end = time.monotonic() + _PATIENCE_S
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > end:
                raise Unavailable(f"{path} is in use by a long read.", fix="run the command again.")
    finally:
        connection.close()
