"""Imported offers in the state folder: one file a format, in the catalogue's own form, and what each import read."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mainspring.core.errors import Corrupt, Invalid
from mainspring.core.files import write_atomic
from mainspring.cost.catalogue.importing import FORMATS, PriceImport
from mainspring.cost.catalogue.offers import Offer, catalogue_lines, read_offers, shipped

_IMPORTS = "imports.json"


def keep(folder: Path, report: PriceImport, offers: Sequence[Offer]) -> int:
    """Keep offers, in the place of those of the same names; return how many of the format are kept now.

    Raises:
        Invalid: The offers are in another currency than those that are kept of the provider.
    """
    kept = {each.name: each for each in _read(folder, report.format)}
    other = next((each for each in kept.values() if each.currency != offers[0].currency), None)
    if other is not None:
        raise Invalid(
            f"{report.file} is in {offers[0].currency}, and the offers of {report.format} that are kept in "
            f"{other.currency}: currencies are not mixed.",
            fix=f"delete {_path(folder, report.format)} to replace them.",
        )
    kept |= {each.name: each for each in offers}
    content = "".join(f"{line}\n" for line in catalogue_lines(kept[name] for name in sorted(kept)))
    write_atomic(_path(folder, report.format), content.encode())
    reports = [*imports(folder), report][-100:]
    write_atomic(folder / _IMPORTS, msgspec.json.format(msgspec.json.encode(reports), indent=1))
    return len(kept)


def imports(folder: Path) -> list[PriceImport]:
    """Return the reports of the last imports, the oldest first."""
    path = folder / _IMPORTS
    return msgspec.json.decode(path.read_bytes(), type=list[PriceImport]) if path.exists() else []


def known_offers(folder: Path) -> list[Offer]:
    """Return the shipped offers and the imported ones, which take precedence, by name."""
    found = {each.name: each for each in shipped()}
    for kind in FORMATS:
        found |= {each.name: each for each in _read(folder, kind)}
    return [found[name] for name in sorted(found)]


def _read(folder: Path, kind: str) -> list[Offer]:
    path = _path(folder, kind)
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return list(read_offers(lines, str(path)))
    except (Invalid, UnicodeDecodeError, csv.Error) as error:
        what = f"The imported prices in {path} are damaged: {error}"
        raise Corrupt(what, fix="delete that file, and import the provider's file again.") from error


def _path(folder: Path, kind: str) -> Path:
    return folder / f"{kind}.csv"
