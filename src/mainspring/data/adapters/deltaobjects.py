"""Delta tables in a bucket. Files are read through a local cache, as data files are immutable.

DuckDB reads local files, and feature reads use the same files repeatedly. Writes go directly to the bucket; concurrent
writers on several machines are kept consistent by Delta's commit, a file created only if absent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import obstore

from mainspring.core.files import disk_errors
from mainspring.core.ids import check_id
from mainspring.core.locks import FileLocks, Locks
from mainspring.core.object_store_url import Bucket, open_store, store_errors
from mainspring.core.settings import Url
from mainspring.core.time import SystemClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.deltadisk import LOG
from mainspring.data.adapters.deltaplaces import is_log, is_table

_AT_ONCE = 8  # requests
_PART_BYTES = 1 << 20
_KEPT_S = 24 * 3600  # seconds after its last use at which an unreferenced cached file is removed
_NAME = re.compile(r"[A-Za-z0-9_.=-]+")


def open_object_lake(url: Url, cache: Path, locks: Locks | None = None) -> DeltaLake:
    """Open the tables under `s3://bucket/prefix?endpoint=https://...&region=...`.

    Args:
        url: The address, see `core.object_store_url`.
        cache: Local folder for cached files.
        locks: Locks shared by all writers; by default this machine's. Delta's commit protocol protects writers from
            each other, but not from the removal of files.

    Raises:
        Invalid: The address cannot be used.
    """
    mine = cache / sha256(url.text.encode()).hexdigest()[:16]
    own: Locks = FileLocks(mine / ".locks")
    return DeltaLake(ObjectsPlace(url, mine), own if locks is None else locks.within(f"lake-{mine.name}"))


class ObjectsPlace:
    """Tables under a prefix of an S3 bucket; `folder` is the local cache."""

    def __init__(self, url: Url, folder: Path) -> None:
        bucket = Bucket.parse(url)
        self._shown = url.shown
        self._folder = folder
        self._address = f"s3://{'/'.join(filter(None, (bucket.name, bucket.prefix)))}"
        self._store = open_store(url)
        self.options: Mapping[str, str] | None = {
            "aws_conditional_put": "etag",
            "allow_http": str(bucket.plain).lower(),
            "connect_timeout": "5s",
            "timeout": "60s",
            "max_retries": "3",
            "retry_timeout": "15s",
            **({"aws_endpoint_url": bucket.endpoint} if bucket.endpoint else {}),
            **({"aws_region": bucket.region} if bucket.region else {}),
        }

    def address(self, table: str) -> str:
        return f"{self._address}/{table}"

    @contextmanager
    def errors(self, table: str) -> Iterator[None]:  # noqa: ARG002
        with store_errors(self._shown, "lake"), disk_errors(self._folder):  # disk_errors is for the cache
            yield

    def tables(self) -> list[str]:
        with self.errors(""):
            found = obstore.list_with_delimiter(self._store)["common_prefixes"]
            names = [name for path in found if is_table(name := path.rpartition("/")[2])]
            return sorted(name for name in names if self.log(name))

    def identity(self, table: str) -> Hashable | None:  # noqa: ARG002
        return self._address  # delta-rs detects changes itself

    def newer(self, table: str, version: int) -> bool:  # noqa: ARG002
        return True  # delta-rs checks itself

    def check(self, table: str, after: int | None) -> None:
        pass  # objects are atomic and durable

    def sync(self, table: str, after: int | None) -> None:
        pass

    def recover(self, table: str) -> bool:  # noqa: ARG002
        return False

    def ask_for_room(self, table: str, size: int) -> None:
        pass

    def fetch(self, table: str, names: Iterable[str]) -> dict[str, str]:
        wanted = {name: self._cached(table, name) for name in names}
        missing = [name for name, path in wanted.items() if not _touched(path)]
        if missing:
            folder = self._folder / table
            with self.errors(table):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                with ThreadPoolExecutor(_AT_ONCE) as pool:
                    came = list(pool.map(lambda name: self._fetch(table, name), missing))
            for name, there in zip(missing, came, strict=True):
                if not there:
                    del wanted[name]
            self._tidy(folder, set(wanted))
        return {name: str(path) for name, path in wanted.items()}

    def lying(self, table: str) -> list[str]:
        return [name for name in self._names(table) if not name.startswith(f"{LOG}/")]

    def log(self, table: str) -> list[str]:
        return [name for name in self._names(table, LOG) if is_log(name)]

    def read(self, table: str, name: str) -> bytes:
        with self.errors(table):
            return bytes(obstore.get(self._store, f"{table}/{name}").bytes())

    def write(self, table: str, name: str, content: bytes) -> None:
        with self.errors(table):
            obstore.put(self._store, f"{table}/{name}", content)

    def parts(self, table: str, name: str) -> Iterator[bytes]:
        with self.errors(table):
            for each in obstore.get(self._store, f"{table}/{name}").stream(_PART_BYTES):
                yield bytes(each)

    def write_all(self, table: str, files: Sequence[tuple[str, Iterable[bytes]]]) -> None:
        data = [each for each in files if not is_log(each[0])]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(lambda each: self._write_parts(table, *each), data):
                pass
        for name, parts in files:
            if is_log(name):
                self._write_parts(table, name, parts)

    def _write_parts(self, table: str, name: str, parts: Iterable[bytes]) -> None:
        beside = self._folder / f".{os.urandom(6).hex()}.partial"  # obstore takes no parts that are read through it
        with self.errors(table):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                with beside.open("xb") as file:
                    file.writelines(parts)
                obstore.put(self._store, f"{table}/{name}", beside)
            finally:
                beside.unlink(missing_ok=True)

    def remove(self, table: str, names: Iterable[str]) -> None:
        for name in names:
            with self.errors(table):
                with suppress(FileNotFoundError):
                    obstore.delete(self._store, f"{table}/{name}")
                self._cached(table, name.replace("/", "~")).unlink(missing_ok=True)

    def _names(self, table: str, below: str = "") -> list[str]:
        prefix = f"{check_id(table, 'table')}/"
        with self.errors(table):
            pages = obstore.list(self._store, f"{prefix}{below}/" if below else prefix)
            return sorted(each["path"].removeprefix(prefix) for page in pages for each in page)

    def _cached(self, table: str, name: str) -> Path:
        # The name comes from the log: it must not escape the cache.
        safe = name if _NAME.fullmatch(name) else sha256(name.encode()).hexdigest()
        return self._folder / table / safe

    def _fetch(self, table: str, name: str) -> bool:
        path = self._cached(table, name)
        beside = path.with_name(f".{path.name}.{os.urandom(6).hex()}.partial")
        try:
            with beside.open("xb") as file:
                for piece in obstore.get(self._store, f"{table}/{name}").stream(8 << 20):
                    file.write(piece)
            beside.replace(path)
        except FileNotFoundError:
            return False
        finally:
            beside.unlink(missing_ok=True)
        return True

    def _tidy(self, folder: Path, used: set[str]) -> None:
        """Remove cached files unused for a day, such as compacted or partially downloaded ones."""
        before = SystemClock().now() / 1e6 - _KEPT_S
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                if path.name not in used and path.stat().st_mtime < before:
                    path.unlink()


def _touched(path: Path) -> bool:
    """Mark a cached file as used; return whether it exists."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True
