"""Import of price files: what was read, what was kept, and what was not understood."""

from __future__ import annotations

import codecs
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeAlias

import msgspec

from mainspring.core.errors import Invalid, NotFound
from mainspring.cost.catalogue import aws, azure, google
from mainspring.cost.catalogue.gathering import Gathered
from mainspring.cost.catalogue.offers import Offer, read_offers

_READ = 1 << 20
_SOURCES = {"aws": "AWS price list", "azure": "Azure retail prices", "google": "Google Compute Engine SKUs"}
FORMATS = (*_SOURCES, "catalogue")

_Reader: TypeAlias = Callable[[TextIO, Gathered, Sequence[str]], None]


class PriceImport(msgspec.Struct, frozen=True, kw_only=True):
    """Result of an import.

    Attributes:
        digest: SHA-256 of the file.
        read: Rows, items or SKUs.
        kept: Offers.
        others: Rows about something else than the hour of a machine with Linux.
        not_understood: Reason -> rows; `examples` are the first of them.
        date: Of the newest price.
    """

    file: str
    format: str
    digest: str
    read: int
    kept: int
    others: int
    not_understood: dict[str, int]
    examples: list[str]
    currency: str
    date: str


class _Digested(io.RawIOBase):
    """Bytes of a file, digested and counted as they are read."""

    def __init__(self, file: BinaryIO, size: int, progress: Callable[[int, int], None] | None) -> None:
        self._file, self._size, self._progress = file, size, progress
        self._digest, self._count = hashlib.sha256(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)  # type: ignore[attr-defined]
        self._digest.update(memoryview(buffer)[:count])
        self._count += count
        if self._progress is not None:
            self._progress(self._count, self._size)
        return int(count)

    def hexdigest(self) -> str:
        """Digest of the whole file: the rest is read."""
        rest = bytearray(_READ)
        while self.readinto(rest):
            pass
        return self._digest.hexdigest()


def read_prices(
    path: Path,
    kind: str,
    regions: Sequence[str] = (),
    today: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[PriceImport, list[Offer]]:
    """Return the offers of a file and a report. Memory does not grow with the file, only with the offers.

    Args:
        kind: One of `FORMATS`.
        regions: Only offers in these, by default in all.
        today: Date of prices that the file does not date.
        progress: Told how many bytes were read, and of how many.

    Raises:
        NotFound: There is no such file.
        Invalid: It is not of that format, has two currencies or none, or no offer.
    """
    try:
        with path.open("rb") as content:
            size = path.stat().st_size
            begin = content.read(_READ).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
            content.seek(0)
            digested = _Digested(content, size, progress)
            with io.TextIOWrapper(io.BufferedReader(digested, _READ), encoding="utf-8-sig", newline="") as file:
                gathered, offers = _read(file, path, kind, regions, begin in (b"{", b"["))
                digest = digested.hexdigest()
    except UnicodeDecodeError as error:
        raise Invalid(f"{path.name} is no UTF-8: {error.reason}.") from error
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}.") from error
    if not offers:
        where = f" in {list(regions)}" if regions else ""
        example = f" ({gathered.examples[0]})" if gathered.examples else ""
        raise Invalid(
            f"{path.name} has no price of a machine{where}: of {gathered.read:,} rows {gathered.others:,} are about "
            f"other things, and {sum(gathered.not_understood.values()):,} were not understood{example}.",
            fix="name its --format, or another --region.",
        )
    if not gathered.date and kind in _SOURCES:
        offers = [msgspec.structs.replace(each, date=today) for each in offers]
    return PriceImport(
        file=path.name,
        format=kind,
        digest=digest,
        read=gathered.read,
        kept=len(offers),
        others=gathered.others,
        not_understood=dict(gathered.not_understood),
        examples=gathered.examples,
        currency=offers[0].currency,
        date=max(each.date for each in offers),
    ), offers


def _read(file: TextIO, path: Path, kind: str, regions: Sequence[str], json: bool) -> tuple[Gathered, list[Offer]]:
    gathered = Gathered(kind, path.name, _SOURCES.get(kind, ""))
    if kind == "catalogue":
        offers = [each for each in read_offers(file, path.name) if not regions or each.region in regions]
        gathered.read = len(offers)
        return gathered, offers
    readers: dict[str, _Reader] = {
        "aws": aws.read_json if json else aws.read_csv,
        "azure": azure.read_json,
        "google": google.read_json,
    }
    readers[kind](file, gathered, regions)
    return gathered, gathered.offers()
