"""A shop whose stores all have something of the customer Ana and of others, and a search of all bytes for her."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mainspring.data import commits
from mainspring.ledger.model import Asked, Log
from mainspring.ledger.recording import Recorder
from mainspring.operations.ingest import land
from mainspring.operations.materialize import materialise_views
from mainspring.operations.subjects import holding
from mainspring.operations.subjects.naming import Subject, find_subjects
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

SHOP = """\
import mainspring as ms

customer = ms.Entity("customer", keys={"customer": ms.String})
shop = ms.Entity("shop", keys={"shop": ms.Int64})
purchases = ms.Source(
    "purchases",
    schema={"customer": ms.String, "shop": ms.Int64, "email": ms.String, "amount": ms.Float64},
    event_time="at",
    checks=[ms.in_range("amount", 0, 1000)],
    pii=["email"],
    retention=(),
)


@ms.feature_view(entity=customer, source=purchases)
class Spending:
    spent = ms.sum("amount", window="30d")
    mailed = ms.count(where=ms.col("email") != "", window="30d")
    email = ms.last("email")


@ms.feature_view(entity=shop, source=purchases)
class Shop:
    buyer = ms.last("customer")
    best = ms.max("amount", window="30d")
    buyers = ms.top_k("customer", k=2, window="30d")
"""
ANA, BEN = "ana-7f3e9c21", "ben-55aa1144"
MAIL, AMOUNT = "ana.erased@example.org", 617.25
HOSTILE = ["%", "_na-7f3e9c21", "ana-7f3e9c21x", "' OR '1'='1", 'q"uote\\;--']


def write(folder: Path, personal: Sequence[str] = ("email",), retention: str = "()") -> None:
    """Write the project's files.

    Args:
        retention: The source's, as code.
    """
    (folder / "mainspring.toml").write_text('name = "shop"\nmodules = ["erased_shop"]\n')
    shop = SHOP.replace('["email"]', repr([*personal])).replace("retention=()", f"retention={retention}")
    (folder / "erased_shop.py").write_text(shop)


def opened(folder: Path, *, restores: bool = False, **settings: Any) -> Project:
    overrides = {"tracking": "memory://", **settings}
    return open_project(load_settings(folder, overrides=overrides, environment={}), restores=restores)


def rows(customer: str, mail: str, amounts: list[float], at: str = "2024-03-20") -> list[str]:
    name = '"' + customer.replace('"', '""') + '"'
    return [f"{name},1,{mail},{amount},{at}T1{n}:00:00Z" for n, amount in enumerate(amounts)]


def ingest(project: Project, folder: Path, *lines: str) -> None:
    path = folder / "purchases.csv"
    path.write_text("\n".join(["customer,shop,email,amount,at", *lines]) + "\n")
    land(project, "purchases", str(path))
    path.unlink()


def log(project: Project, prefix: str, customers: list[str], personal: list[str]) -> None:
    recorder = Recorder(
        project.prediction_log, endpoint="late", model="late", version="1", digest="d", keys=["customer"],
        personal=personal, policy=Log(sync=True),
    )  # fmt: skip
    count = len(customers)
    outputs: dict[str, Any] = {"probability": [0.5] * count}
    written = recorder.record(
        at=1, ids=[f"{prefix}{number}" for number in range(count)], asked=[Asked("test", 1, count, "")],
        features={"Spending.email": [f"{each}@mail" for each in customers]}, sent={"customer": customers},
        outputs=outputs,
    )  # fmt: skip
    for each in written:
        each.result()


def planted(folder: Path, personal: Sequence[str] = ("email",), **settings: Any) -> Project:
    """Return a project whose stores all have something of Ana and of others."""
    write(folder, personal)
    project = opened(folder, **settings)
    others = [line for each in HOSTILE for line in rows(each, "other@example.org", [5.0])]
    ingest(project, folder, *rows(ANA, MAIL, [AMOUNT, -1.0]), *rows(BEN, "ben@example.org", [10.0, 20.0]), *others)
    commit = commits.commit(project.lake, project.snapshots, project.wall)
    project.snapshots.tag("before", commit.id)
    materialise_views(project)
    ingest(project, folder, *rows(ANA, MAIL, [3.0], "2024-03-21"), *rows(BEN, "ben@example.org", [30.0], "2024-03-21"))
    materialise_views(project)
    log(project, "clear", [ANA, BEN, "ana-7f3e9c21x"], [])
    log(project, "sealed", [ANA, BEN], ["customer", "Spending.email"])
    project.prediction_log.close()
    del project.__dict__["prediction_log"]
    project.predictions.compact()
    log(project, "late", [ANA, BEN], [])  # not compacted, by a process that goes on
    holding.hold(project, [subject(project)], "a case")
    holding.release(project, [subject(project)])
    return project


def found_in(folder: Path, needles: Sequence[re.Pattern[bytes]] = ()) -> list[str]:
    """Return the files with any of the patterns, by default all, also inside of Parquet."""
    found = []
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        contents = [path.read_bytes(), *(_columns(path) if path.suffix == ".parquet" else ())]
        if any(needle.search(content) for content in contents for needle in needles or NEEDLES):
            found.append(str(path.relative_to(folder)))
    return found


def _columns(path: Path) -> Iterator[bytes]:
    with pq.ParquetFile(path) as file:
        yield repr(file.read().to_pylist()).encode()
        yield repr(file.metadata.to_dict()).encode()


# The key, but not the one that begins with it, the mark of personal data, and the amount as text and as a double.
NEEDLES = [
    re.compile(each)
    for each in (rb"ana-7f3e9c21(?!x)", rb"ana\.erased@", rb"617\.25", re.escape(struct.pack("<d", AMOUNT)))
]


def customers(project: Project) -> list[str]:
    scan = project.lake.scan("purchases")
    return sorted({name for file in scan.files or () for name in pq.read_table(file)["customer"].to_pylist()})


def subject(project: Project, customer: str = ANA) -> Subject:
    """Return a customer."""
    (found,) = find_subjects(project, "customer", [customer])
    return found
