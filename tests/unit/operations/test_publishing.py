"""Published aggregates: how far one subject moves the exact numbers, the noise that is added, and the budget."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mainspring as ms
from kit import documents
from kit.depth import examples
from kit.later import later
from mainspring.core.errors import Conflict, Invalid, Unavailable
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.model import Privacy
from mainspring.operations import publishing
from mainspring.operations.backup.making import backup
from mainspring.operations.backup.restoring import restore
from mainspring.operations.ingest import land
from mainspring.operations.publishing import Asked, asked_for, publish
from mainspring.project import Project, open_project
from mainspring.project.catalog import open_catalog
from mainspring.project.settings import load_settings
from mainspring.security.adapters.privacy_budgets import CatalogPrivacyBudgets
from mainspring.stats.private_noise import noisy

later("opendp")

ORDERS = """\
import mainspring as ms

orders = ms.Source(
    "orders",
    schema={"customer": ms.String, "amount": ms.Float64, "channel": ms.String},
    event_time="at",
    privacy=ms.Privacy(budget=1.0, keys=["customer"], each=2),
)
stars = ms.Source(
    "stars", schema={"customer": ms.String, "given": ms.Float64}, event_time="at",
    privacy=ms.Privacy(budget=1e3, keys=["customer"], each=1),
)
plain = ms.Source("plain", schema={"customer": ms.String}, event_time="at")
"""
ASKED = [Asked("count"), asked_for("sum", "amount:-5:10"), asked_for("mean", "amount:-5:10"),
         asked_for("histogram", "channel:web,shop"), asked_for("histogram", "amount:0,5,10")]  # fmt: skip


def reopened(folder: Path) -> Project:
    return open_project(load_settings(folder, overrides={"tracking": "memory://"}, environment={}))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "mainspring.toml").write_text('name = "orders"\nmodules = ["published_orders"]\n')
    (tmp_path / "published_orders.py").write_text(ORDERS)
    rows = [f"c{number % 400},{number % 7},{('web', 'shop', 'fax')[number % 3]},2024-03-20T10:00:00Z"
            for number in range(1_000)]  # fmt: skip
    (tmp_path / "orders.csv").write_text("\n".join(["customer,amount,channel,at", *rows]) + "\n")
    made = reopened(tmp_path)
    land(made, "orders", str(tmp_path / "orders.csv"))
    return made


def test_numbers_are_near_the_exact_ones_and_cost_what_they_say(project: Project) -> None:
    made = publish(project, "orders", ASKED, 0.75)
    documents.check(["data", "publish"], msgspec.json.decode(msgspec.json.encode(made)))
    values = {(each.aggregate, each.column, each.bucket): each.value for each in made.published}
    assert abs(values["count", "", ""] - 800) < 200  # two rows of each of 400
    assert abs(values["mean", "amount", ""] - 3) < 2
    assert {key[2] for key in values if key[:2] == ("histogram", "channel")} == {"web", "shop", "(other)"}
    assert (made.spent, made.budget) == (0.75, 1.0)
    event = project.audit.read()[0]
    assert (event.action, event.resource) == ("data.publish", "source/orders")
    assert event.detail == "epsilon 0.75: count, sum amount, mean amount, histogram channel, histogram amount"
    with pytest.raises(Conflict, match=r"0\.25 is left"):
        publish(project, "orders", ASKED, 0.5)
    assert project.privacy_budgets.spent("orders") == 750_000


def test_nulls_count_in_no_sum_or_mean(project: Project, tmp_path: Path) -> None:
    rows = [f"c{number},{5 if number < 100 else ''},2024-03-20T10:00:00Z" for number in range(400)]
    (tmp_path / "stars.csv").write_text("\n".join(["customer,given,at", *rows]) + "\n")
    land(project, "stars", str(tmp_path / "stars.csv"))
    asked = [Asked("count"), asked_for("sum", "given:1:6"), asked_for("mean", "given:1:6")]
    made = publish(project, "stars", asked, 1e3)  # hardly any noise
    assert [each.value for each in made.published] == pytest.approx([400, 500, 5], abs=0.5)


def test_what_cannot_be_published_is_refused_and_costs_nothing(project: Project) -> None:
    for source, asked, epsilon in (
        ("plain", [Asked("count")], 0.1), ("orders", [], 0.1), ("orders", [Asked("count")], 0.0),
        ("orders", [Asked("count")], math.nan), ("orders", [Asked("count")], math.inf),
        ("orders", [Asked("count")], 1e305), ("orders", [Asked("sum", "channel", 0, 1)], 0.1),
        ("orders", [Asked("sum", "amount", 1, 1)], 0.1),
        ("orders", [Asked("histogram", "amount", buckets=("2", "1"))], 0.1),
        ("orders", [Asked("histogram", "nothing", buckets=("a",))], 0.1),
    ):  # fmt: skip
        with pytest.raises(Invalid):
            publish(project, source, asked, epsilon)
    for text in ("amount", "amount:1", "amount:nan:2", "amount:0:inf"):
        with pytest.raises(Invalid):
            asked_for("sum", text)
    assert project.privacy_budgets.spent("orders") == 0


@settings(max_examples=examples(gate=12, deep=300), deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 4), st.one_of(st.none(), st.floats(-50, 50)), st.sampled_from(["web", "shop", "fax", None])
        ),
        min_size=1,
        max_size=25,
    ),
    st.integers(0, 4),
    st.integers(1, 3),
)
def test_one_subject_changes_the_exact_numbers_by_no_more_than_the_noise_covers(
    rows: list[tuple[int, float | None, str | None]], who: int, each: int
) -> None:
    privacy = Privacy(budget=1.0, keys=["customer"], each=each)
    source = ms.Source(
        "orders", schema={"customer": ms.String, "amount": ms.Float64, "channel": ms.String}, event_time="at",
        privacy=privacy,
    )  # fmt: skip
    exact = [part for one in ASKED for part in publishing._exact(source, privacy, one)]

    def numbers(left_out: int | None) -> list[list[int]]:
        kept = [(f"c{name}", amount, channel) for name, amount, channel in rows if name != left_out]
        columns = dict(zip(("customer", "amount", "channel"), zip(*kept, strict=True) if kept else ((), (), ()),
                           strict=True))  # fmt: skip
        kinds = {"customer": pa.string(), "amount": pa.float64(), "channel": pa.string()}
        table = pa.table({name: pa.array(values, kinds[name]) for name, values in columns.items()})
        table = table.append_column("_seq", pa.array(range(len(kept)), pa.int64()))
        lake = MemoryLake()
        lake.append("orders", table.to_batches(), table.schema, key="one")
        return publishing._read(lake.scan, source, privacy, exact)

    for part, whole, without in zip(exact, numbers(None), numbers(who), strict=True):
        assert sum(abs(a - b) for a, b in zip(whole, without, strict=True)) <= part.sensitivity


@pytest.mark.parametrize(("sensitivity", "epsilon"), [(1, 0.5), (4, 2.0), (1 << 20, 0.1)])
def test_the_noise_is_of_the_scale_that_the_epsilon_asks_for(sensitivity: int, epsilon: float) -> None:
    values, scale = noisy([1_000] * 20_000, sensitivity, epsilon)
    assert scale == pytest.approx(sensitivity / epsilon)
    noise = np.abs(np.asarray(values, float) - 1_000)
    alpha = math.exp(-1 / scale)
    mean = 2 * alpha / (1 - alpha**2)  # of a discrete Laplace variable's size; its variance is below 2 scale²
    assert abs(noise.mean() - mean) < 6 * math.sqrt(2) * scale / math.sqrt(len(noise))
    # At twice the scale a size is exceeded as rarely as the density says: neighbours are not told apart by the tail.
    assert (noise > 2 * scale).mean() == pytest.approx(2 * alpha ** (math.floor(2 * scale) + 1) / (1 + alpha), abs=0.02)


def test_spenders_at_once_spend_no_more_than_the_budget(tmp_path: Path) -> None:
    url = Url(f"sqlite:///{tmp_path / 'catalog.db'}")
    open_catalog(url, MemoryLocks()).dispose()

    def spend(_: int) -> int:
        budgets = CatalogPrivacyBudgets(open_catalog(url, MemoryLocks()), tmp_path / "spent")
        return sum(budgets.spend("orders", 30_000, 1_000_000) for _ in range(10))

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(spend, range(6))) == 33
    assert CatalogPrivacyBudgets(open_catalog(url, MemoryLocks()), tmp_path / "spent").spent("orders") == 990_000


def test_a_process_that_is_killed_as_it_draws_noise_has_spent_with_an_event(project: Project, tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert project.privacy_budgets.spent("orders") == 500_000
    assert project.audit.read()[0].detail == "epsilon 0.5: count"


_KILLED = """
import os, signal, sys
from pathlib import Path
from mainspring.operations import publishing
from mainspring.project import open_project
from mainspring.project.settings import load_settings

def noisy(values, sensitivity, epsilon):
    if values != [0]:  # of the check that OpenDP is there
        os.kill(os.getpid(), signal.SIGKILL)

publishing.noisy = noisy
project = open_project(load_settings(Path(sys.argv[1]), overrides={"tracking": "memory://"}, environment={}))
publishing.publish(project, "orders", [publishing.Asked("count")], 0.5)
"""


def test_a_restored_catalog_gives_no_budget_back(project: Project, tmp_path: Path) -> None:
    backup(project, str(tmp_path / "backups"))
    publish(project, "orders", [Asked("count")], 0.75)
    project.close()
    for path in (tmp_path / ".mainspring").glob("catalog.db*"):
        path.unlink()
    project = reopened(tmp_path)
    restore(project, str(tmp_path / "backups"))
    assert project.privacy_budgets.spent("orders") == 750_000
    with pytest.raises(Conflict, match=r"0\.25 is left"):
        publish(project, "orders", [Asked("count")], 0.5)
    assert publish(project, "orders", [Asked("count")], 0.25).spent == 1.0


def test_what_the_audit_log_cannot_keep_is_not_spent(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_: object) -> None:
        raise Unavailable("The catalog does not answer.")

    monkeypatch.setattr(publishing, "audit", unavailable)
    with pytest.raises(Unavailable):
        publish(project, "orders", [Asked("count")], 0.5)
    assert project.privacy_budgets.spent("orders") == 0
