"""Advice follows the facts: a step is named only if the use justifies it, and the first unmet area comes first."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from mainspring.core.errors import NotFound
from mainspring.core.time import DAY
from mainspring.operations.advise import advise, collect, first_page
from mainspring.operations.advise.folder import FirstPage
from mainspring.operations.advise.model import Advised, EndpointFacts, Facts, ModelFacts
from mainspring.project import open_project
from mainspring.project.settings import load_settings

pytestmark = pytest.mark.slow

NOW = 1_000 * DAY
MODEL = ModelFacts(
    name="late",
    gates=("beats",),
    trained_at=(NOW - 3 * DAY,),
    versions=1,
    newest="1",
    metric="auc",
    value=0.74,
    baseline=0.68,
    better=True,
    promotions=1,
    promoters=("ana",),
    champion="1",
    champion_since=NOW - 2 * DAY,
)
ENDPOINT = EndpointFacts(
    name="late", model="late", serves=True, predictions=500, a_day=50.0, peak=0.1, labels=400, idle_days=0.0
)
SOUND = Facts(
    project="shop", now=NOW, sources={"orders": 900}, models=(MODEL,), endpoints=(ENDPOINT,), tests=3, kept=True
)


def changed(facts: Facts = SOUND, **fields: Any) -> Advised:
    return advise(msgspec.structs.replace(facts, **fields))


def of_model(**fields: Any) -> Advised:
    return changed(models=(msgspec.structs.replace(MODEL, **fields),))


def of_endpoint(**fields: Any) -> Advised:
    return changed(endpoints=(msgspec.structs.replace(ENDPOINT, **fields),))


def test_a_sound_project_of_little_use_needs_nothing() -> None:
    advised = advise(SOUND)
    assert advised.next is None
    states = {each.area: each.state for each in advised.areas}
    assert set(states.values()) == {"in place", "not needed yet"}
    assert states["rollout"] == states["automation"] == "not needed yet"


@pytest.mark.parametrize(
    ("advised", "area", "evidence"),
    [
        (changed(sources={}), "data", "No source"),
        (changed(sources={"orders": 900, "clicks": None}), "data", "clicks has none"),
        (changed(models=()), "baseline", "No model"),
        (of_model(versions=0, newest=""), "baseline", "late has no version"),
        (of_model(value=0.66, better=False), "baseline", "auc 0.66"),
        (of_model(gates=("at_least",)), "gates", "1 version and at_least"),
        (of_model(promoters=("ana", "bo")), "gates", "2 people"),
        (changed(kept=False), "tracking", "1 run recorded"),
        (of_model(champion="", promotions=0), "serving", "no champion"),
        (changed(endpoints=()), "serving", "no endpoint"),
        (of_endpoint(predictions=0, labels=0, idle_days=None), "serving", "no prediction"),
        (changed(tests=0), "tests", "late is live"),
        (of_endpoint(labels=0), "monitoring", "500 predictions in 60 days, and the label of none"),
        (
            of_endpoint(drifted=("Hub.backlog", "Hub.load"), alerts=("Hub.backlog",)),
            "monitoring",
            "2 columns of late drifted, 1 of them in two windows in a row: Hub.backlog",
        ),
        (of_model(trained_at=tuple(NOW - day * DAY for day in (21, 14, 7))), "automation", "on 3 days"),
        (
            changed(
                models=(msgspec.structs.replace(MODEL, promotions=2),),
                endpoints=(msgspec.structs.replace(ENDPOINT, a_day=40_000.0),),
            ),
            "rollout",
            "40,000 predictions a day",
        ),
        (of_endpoint(idle_days=30.0), "cost", "30 days old"),
        (changed(log_bytes=6 * 1024**3), "cost", "6.0 GB"),
        (of_endpoint(peak=20.0), "cost", "20.0 predictions a second"),
        (
            changed(endpoints=(msgspec.structs.replace(ENDPOINT, peak=2.0, capacity=900.0),), gateway_workers=4),
            "cost",
            "450th",
        ),
    ],
)
def test_the_first_unmet_area_is_next(advised: Advised, area: str, evidence: str) -> None:
    assert advised.next is not None
    assert (advised.next.area, advised.next.state) == (area, "next")
    assert evidence in advised.next.evidence
    assert advised.next.step
    assert advised.next.why
    assert advised.next.command


@pytest.mark.parametrize(
    "facts",
    [
        {"models": (msgspec.structs.replace(MODEL, trained_at=tuple(NOW - hour for hour in range(9))),)},
        {"models": (msgspec.structs.replace(MODEL, trained_at=tuple(NOW - d * DAY for d in (100, 90, 80))),)},
        {"models": (msgspec.structs.replace(MODEL, promotions=9),)},  # with 50 predictions a day
        {"endpoints": (msgspec.structs.replace(ENDPOINT, predictions=60, labels=0),)},
        {"endpoints": (msgspec.structs.replace(ENDPOINT, peak=20.0, capacity=25.0),), "gateway_workers": 2},
        {"log_bytes": 6 * 1024**3, "expires": True},
    ],
)
def test_no_step_is_named_that_the_use_does_not_justify(facts: dict[str, Any]) -> None:
    assert changed(**facts).next is None


def test_a_declared_rollout_is_in_place() -> None:
    endpoint = msgspec.structs.replace(ENDPOINT, a_day=40_000.0, rollout=True)
    advised = changed(models=(msgspec.structs.replace(MODEL, promotions=2),), endpoints=(endpoint,))
    assert {each.area: each.state for each in advised.areas}["rollout"] == "in place"


def test_a_later_step_waits_for_the_earlier_one() -> None:
    advised = changed(sources={}, tests=0, kept=False)
    assert advised.next is not None
    assert advised.next.area == "data"
    assert [each.area for each in advised.areas if each.state == "next"] == ["data", "tracking", "tests"]


def test_a_new_project_begins_with_its_data(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "features.py").write_text(
        "import mainspring as ms\n"
        'orders = ms.Source("orders", schema={"customer": ms.String}, event_time="ordered_at")\n'
    )
    (tmp_path / "mainspring.toml").write_text('name = "shop"\nmodules = ["shop.features"]\n[profiles.local]\n')
    (tmp_path / "test_orders.py").write_text("")
    project = open_project(load_settings(tmp_path, environment={}))
    facts = collect(project)
    assert (facts.sources, facts.tests, facts.models) == ({"orders": None}, 1, ())
    assert not (project.settings.state / "tracking.db").exists()  # looking makes no store
    found = advise(facts).next
    assert found is not None
    assert found.command == "mainspring ingest orders FILE"
    project.close()


def _notebook_of(source: str) -> str:
    return f'{{"cells": [{{"cell_type": "code", "source": "{source}"}}]}}'


class TestAFolderWithoutAProject:
    @staticmethod
    def table(folder: Path, query: str, name: str = "orders.csv") -> None:
        duckdb.sql(query).write_csv(str(folder / name))

    def test_a_baseline_comes_first(self, tmp_path: Path) -> None:
        """The newest fifth decides: the older rows say False, of the newest a quarter do."""
        self.table(
            tmp_path,
            "SELECT i AS id, TIMESTAMP '2026-01-01' + to_hours(i::int) AS ordered_at, i >= 80 AND i % 4 > 0 AS late "
            "FROM range(100) t(i) ORDER BY hash(i)",
        )
        (tmp_path / "explore.ipynb").write_text(
            json.dumps(
                {"cells": [{"cell_type": "code", "source": ["from sklearn import svm\n", "train_test_split(x)"]}]}
            )
        )
        page = first_page(tmp_path)
        [table], [notebook] = page.tables, page.notebooks
        assert (table.label, table.metric, table.constant_value, table.held_out) == ("late", "accuracy", "False", 20)
        assert table.constant == pytest.approx(0.25)
        assert (notebook.libraries, notebook.random_split) == (("sklearn",), True)
        assert "late = False is right for 25.0%" in page.steps[0]
        assert "at random" in page.steps[1]
        compile(page.source, "features.py", "exec")
        assert 'event_time="ordered_at"' in page.source
        assert '"late": ms.Boolean' in page.source

    def test_a_number_has_the_error_of_its_median(self, tmp_path: Path) -> None:
        self.table(tmp_path, "SELECT i AS price, i % 3 AS size FROM range(50) t(i)")
        [table] = first_page(tmp_path).tables
        held_out = [abs(price - 19.5) for price in range(40, 50)]
        assert (table.metric, table.constant) == ("mean_absolute_error", pytest.approx(sum(held_out) / 10))

    @pytest.mark.parametrize(
        ("name", "content", "encoding"),
        [
            ("a.csv", "id;größe;late\n1;klein;true\n2;groß;false\n".encode("latin-1"), "latin-1"),
            ("a.csv", "id,größe,late\n1,klein,true\n2,groß,false\n".encode("utf-16"), "utf-16"),
            ("A.CSV", "id,größe,late\r\n1,klein,true\r\n2,groß,false\r\n".encode("utf-8-sig"), ""),
            ("a.tsv", "id\tgröße\tlate\n1\tklein\ttrue\n2\tgroß\tfalse\n".encode(), ""),
            ("a.csv.gz", gzip.compress("id|größe|late\n1|klein|true\n2|groß|false\n".encode()), ""),
        ],
        ids=["latin-1", "utf-16", "mark", "tabs", "gzip"],
    )
    def test_a_table_is_read_in_the_encoding_and_with_the_separator_that_it_has(
        self, tmp_path: Path, name: str, content: bytes, encoding: str
    ) -> None:
        (tmp_path / name).write_bytes(content)
        page = first_page(tmp_path)
        [table] = page.tables
        assert list(table.columns) == ["id", "größe", "late"]
        assert (table.rows, table.label, table.encoding) == (2, "late", encoding)
        assert any("iconv" in step for step in page.steps) is bool(encoding)

    def test_a_file_that_is_not_what_its_name_says_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "photo.csv").write_bytes(bytes(range(256)) * 400)
        (tmp_path / "lines.csv").write_bytes(b'"' + b"x," * 1_100_000)
        with pytest.raises(NotFound, match=r"no notebook; lines.csv, photo.csv cannot be read as a table"):
            first_page(tmp_path)
        (tmp_path / "good.csv").write_text("id,late\n1,true\n")
        assert first_page(tmp_path).unread == ("lines.csv", "photo.csv")

    def test_rows_whose_label_is_not_known_yet_do_not_count(self, tmp_path: Path) -> None:
        """The newest rows have no label, so the constant would be wrong for all of them."""
        late = ["true"] * 20 + ["true", "true", "true", "false", "false"] + [""] * 75
        lines = [f"2026-01-01T{row // 60:02d}:{row % 60:02d}:00,{each}" for row, each in enumerate(late)]
        (tmp_path / "a.csv").write_text("at,late\n" + "\n".join(lines))
        [table] = first_page(tmp_path).tables
        assert (table.held_out, table.constant) == (5, pytest.approx(0.6))

    @pytest.mark.parametrize("label", ["", "nan"])
    def test_a_label_that_tells_nothing_has_no_constant(self, tmp_path: Path, label: str) -> None:
        (tmp_path / "a.csv").write_text("id,price\n" + "".join(f"{row},{label}\n" for row in range(40)) + "41,2.5\n")
        page = first_page(tmp_path)
        [table] = page.tables
        assert (table.label, table.constant, table.metric) == ("price", None, "")
        assert "decide which column" in page.steps[0]
        assert msgspec.json.decode(msgspec.json.encode(page), type=FirstPage) == page

    def test_the_types_that_pandas_writes_are_times_and_numbers(self, tmp_path: Path) -> None:
        """Pandas keeps nanoseconds and small integers in Parquet."""
        columns = (
            "SELECT (TIMESTAMP '2026-01-01' + to_hours(i::int))::TIMESTAMP_NS AS pickup, i::SMALLINT AS price, "
            "i::UINTEGER AS seats, i::DECIMAL(9, 2) AS fee FROM range(100) t(i)"
        )
        duckdb.sql(columns).write_parquet(str(tmp_path / "a.parquet"))
        page = first_page(tmp_path)
        [table] = page.tables
        assert (table.times, table.metric) == (("pickup",), "mean_absolute_error")
        assert "newest 20" in page.steps[0]
        for line in ('event_time="pickup"', '"price": ms.Int64', '"seats": ms.Int64', '"fee": ms.Float64'):
            assert line in page.source

    @pytest.mark.parametrize("name", ["2024 Orders.csv", "class.csv", "ñ.csv", "-.csv", "a.b.csv"])
    def test_whatever_the_file_is_called_the_declaration_is_python(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text('"a ""quoted"" \x1b[31m name",at,late\n1,2026-01-01,true\n')
        compile(first_page(tmp_path).source, "features.py", "exec")

    def test_a_wide_table_is_not_held_in_memory(self, tmp_path: Path) -> None:
        names = ", ".join(f"i AS c{place}" for place in range(2000))
        duckdb.sql(f"SELECT {names}, i % 7 = 0 AS late FROM range(3000) t(i)").write_parquet(
            str(tmp_path / "a.parquet")
        )
        [table] = first_page(tmp_path).tables
        assert (len(table.columns), table.rows, table.label) == (2001, 3000, "late")
        assert list(tmp_path.iterdir()) == [tmp_path / "a.parquet"]  # nothing is written beside it

    @pytest.mark.parametrize(
        ("content", "libraries", "random"),
        [
            ("[" * 100_000, (), False),
            ('{"cells": [1, {"cell_type": "code", "source": 3}, {"cell_type": "code"}, null]}', (), False),
            ("\udcff", (), False),
            ('{"worksheets": [{"cells": [{"cell_type": "code", "input": ["import torch"]}]}]}', ("torch",), False),
            (_notebook_of("train_test_split(f(x), y, shuffle=False)"), (), False),
            (_notebook_of("train_test_split(f(x), y)\\nfit(shuffle=False)"), (), True),
            (_notebook_of("train_test_split(" * 60_000), (), True),
        ],
        ids=["deep", "odd", "bytes", "old", "in time", "at random", "open"],
    )
    def test_a_notebook_that_is_broken_old_or_hostile(
        self, tmp_path: Path, content: str, libraries: tuple[str, ...], random: bool
    ) -> None:
        (tmp_path / "a.ipynb").write_bytes(content.encode("utf-8", "surrogateescape"))
        [notebook] = first_page(tmp_path).notebooks
        assert (notebook.libraries, notebook.random_split) == (libraries, random)

    def test_a_folder_of_very_many_files_is_looked_at_in_part(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("id,late\n1,true\n")
        for place in ("b/c/d/e", "venv", ".git"):
            (tmp_path / place).mkdir(parents=True)
            (tmp_path / place / "hidden.csv").write_text("id,late\n1,true\n")
        (tmp_path / "b" / "c" / "d" / "seen.csv").write_text("id,late\n1,true\n2,false\n")
        assert {each.path for each in first_page(tmp_path).tables} == {"a.csv", "b/c/d/seen.csv"}

    def test_what_is_no_table_is_left_out(self, tmp_path: Path) -> None:
        (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
        (tmp_path / "b.ipynb").write_text("[]")
        (tmp_path / "outside.csv").symlink_to("/etc/passwd")
        page = first_page(tmp_path)
        assert (page.tables, page.source) == ((), "")
        assert [notebook.path for notebook in page.notebooks] == ["b.ipynb"]

    def test_an_empty_folder_is_told_where_to_begin(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="no notebook") as error:
            first_page(tmp_path)
        assert "mainspring init" in str(error.value.fix)
