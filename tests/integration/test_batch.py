"""Batch runs: each row as a gateway answers it, once, resumed, incremental, and wrong inputs by name."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import scoring
from kit.console.flights import Project
from kit.depth import examples
from kit.scoring import FEATURES, NETWORK
from mainspring.core.errors import Conflict, Invalid, InvalidData, MainspringError, NotFound
from mainspring.core.time import HOUR
from mainspring.data import duck
from mainspring.operations.batch.folder import FolderOutput
from mainspring.operations.batch.running import run_batch
from mainspring.operations.batch.values import BatchReport, Request


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return scoring.project_at(tmp_path)


def run(project: Project, source: object, output: object, *, target: str = NETWORK, **options: Any) -> BatchReport:
    progress = options.pop("progress", None)
    confined = options.pop("confined", None)
    options = {"chunk_rows": 50, **options}
    request = Request(target, str(source), str(output), **options)
    return run_batch(project, request, progress=progress, confined=confined)


def stored(path: Path, rows: pa.Table, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path, **options)
    return path


def table(project: Project, name: str, order: str = "prediction_id") -> pa.Table:
    with duck.connect() as con:
        duck.register(con, "rows", project.lake.scan(name))
        return con.sql(f"FROM rows ORDER BY {order}").to_arrow_table()


def test_each_row_is_answered_as_by_a_gateway_as_of_its_own_instant(project: Project, tmp_path: Path) -> None:
    rows = scoring.parcels(110)
    source = stored(tmp_path / "rows.parquet", rows, row_group_size=37)
    report = run(project, source, tmp_path / "out", target=FEATURES, as_of="posted_at")
    found = pq.read_table(tmp_path / "out")
    assert found["probability"].to_pylist() == scoring.one_by_one(project, FEATURES, rows, at="posted_at")
    assert found.select(rows.column_names) == rows
    assert found["at"].to_pylist() == rows["posted_at"].to_pylist()
    version = project.versions.get(FEATURES, "champion")
    for name, word in (("model", FEATURES), ("version", "1"), ("digest", version.digest)):
        assert set(found[name].to_pylist()) == {word}
    ids = found["prediction_id"].to_pylist()
    assert len(set(ids)) == 110
    assert ids == sorted(ids)
    assert {len(each) for each in ids} == {26}
    assert (report.rows, report.predicted, report.quarantined, report.chunks) == (110, 110, 0, 3)
    assert "batch.run" in {each.action for each in project.audit.read(5)}


def test_features_are_read_as_of_now_also_when_a_run_is_carried_on_later(project: Project, tmp_path: Path) -> None:
    rows = scoring.parcels(120)
    source = stored(tmp_path / "rows.parquet", rows)

    def stop(done: int, total: int, left: float | None) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(project, source, tmp_path / "out", target=FEATURES, progress=stop, threads=1)
    expected = scoring.one_by_one(project, FEATURES, rows)
    # The world moves on: time, the data of features, and the live version.
    project.clock.advance(HOUR)
    scoring.land(project, scoring.scan_rows(seed=9), batch_id="later")
    scoring.add_version(project, FEATURES, seed=5)
    report = run(project, source, tmp_path / "out", target=FEATURES)
    assert 0 < report.resumed < report.chunks
    found = pq.read_table(tmp_path / "out")
    assert found["probability"].to_pylist() == expected
    assert set(found["version"].to_pylist()) == {"1"}


@given(st.data())
@settings(max_examples=examples(gate=4, deep=40))
def test_any_input_in_any_chunks_gives_each_row_once(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("any")
    project = scoring.project_at(root)
    sizes = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=4))
    rows = scoring.numbers(sum(sizes), seed=data.draw(st.integers(0, 99)))
    start = 0
    for number, size in enumerate(sizes):
        group = data.draw(st.integers(1, 40))
        stored(root / "in" / f"{number}.parquet", rows.slice(start, size), row_group_size=group)
        start += size
    options = {"chunk_rows": data.draw(st.integers(1, 80)), "threads": data.draw(st.integers(1, 3))}
    to_table = data.draw(st.booleans())
    report = run(project, root / "in", "scored" if to_table else root / "out", **options)
    found = table(project, "scored") if to_table else pq.read_table(root / "out")
    assert found["id"].to_pylist() == rows["id"].to_pylist()
    assert found["probability"].to_pylist() == scoring.one_by_one(project, NETWORK, rows)
    assert (report.predicted, report.quarantined) == (sum(sizes), 0)


def test_a_table_of_the_lake_and_a_query_give_the_same(project: Project, tmp_path: Path) -> None:
    rows = scoring.parcels(90)
    scoring.land(project, rows.select(["hub", "weight", "posted_at"]).to_pylist(), source=scoring.posted)
    run(project, "posted", tmp_path / "table", target=FEATURES, as_of="posted_at")
    query = "SELECT hub, weight, posted_at FROM posted ORDER BY posted_at, weight"
    run(project, query, "scored", target=FEATURES, as_of="posted_at")
    one = pq.read_table(tmp_path / "table").sort_by([("posted_at", "ascending"), ("weight", "ascending")])
    other = table(project, "scored")
    for name in ("hub", "weight", "posted_at", "probability", "at"):
        assert one[name].to_pylist() == other[name].to_pylist()
    assert not [name for name in one.column_names if name.startswith("_")]
    assert not list((tmp_path / ".mainspring" / "batch").glob("*.input.parquet"))


def test_what_is_new_is_added_and_nothing_twice(project: Project, tmp_path: Path) -> None:
    folder, rows = tmp_path / "in", scoring.numbers(150)
    stored(folder / "a.parquet", rows.slice(0, 60))
    assert run(project, folder, tmp_path / "out", new=True).predicted == 60
    nothing = run(project, folder, tmp_path / "out", new=True)
    assert (nothing.rows, nothing.predicted) == (0, 0)
    stored(folder / "b.parquet", rows.slice(60))
    scoring.add_version(project, NETWORK, seed=8)
    assert run(project, folder, tmp_path / "out", new=True).predicted == 90
    found = pq.read_table(tmp_path / "out")
    assert found["id"].to_pylist() == list(range(150))
    assert found["version"].to_pylist() == ["1"] * 60 + ["2"] * 90
    stored(folder / "a.parquet", rows.slice(0, 61))
    with pytest.raises(Conflict, match=r"a\.parquet was changed since an earlier run"):
        run(project, folder, tmp_path / "out", new=True)


def test_what_is_new_in_a_table_is_what_was_appended(tmp_path: Path) -> None:
    project = scoring.project_at(tmp_path, on_disk=True)
    rows = scoring.numbers(100)

    def append(start: int, count: int) -> None:
        part = rows.slice(start, count)
        project.lake.append("numbers", part.to_batches(), part.schema, key=str(start))

    append(0, 40)
    run(project, "numbers", "scored", new=True)
    append(40, 60)
    assert run(project, "numbers", "scored", new=True).rows == 60
    assert run(project, "numbers", "scored", new=True).rows == 0
    assert table(project, "scored", "id")["id"].to_pylist() == list(range(100))
    project.lake.replace("numbers", rows.to_batches(), rows.schema, key="anew")
    with pytest.raises(Conflict, match="were changed since version"):
        run(project, "numbers", "scored", new=True)


def test_rows_that_fail_go_to_the_quarantine_with_the_reason(project: Project, tmp_path: Path) -> None:
    rows = scoring.parcels(100)
    hubs = [None if number % 10 == 3 else hub for number, hub in enumerate(rows["hub"].to_pylist())]
    times = [None if number == 7 else at for number, at in enumerate(rows["posted_at"].to_pylist())]
    rows = rows.set_column(1, "hub", pa.array(hubs)).set_column(3, "posted_at", pa.array(times, scoring.INSTANT))
    source = stored(tmp_path / "rows.parquet", rows)
    report = run(project, source, tmp_path / "out", target=FEATURES, as_of="posted_at")
    assert report.reasons == {"hub is null": 10, "posted_at is null": 1}
    assert (report.rows, report.predicted, report.quarantined) == (100, 89, 11)
    refused = pq.read_table(tmp_path / "out" / "_quarantine")
    assert sorted(refused["_row"].to_pylist()) == sorted([*range(3, 100, 10), 7])
    assert refused.select(rows.column_names).to_pylist() == rows.take(refused["_row"]).to_pylist()
    found, kept = pq.read_table(tmp_path / "out"), [row for row in range(100) if row % 10 != 3 and row != 7]
    assert found["parcel"].to_pylist() == [f"p{row}" for row in kept]
    assert found["probability"].to_pylist() == scoring.one_by_one(project, FEATURES, rows.take(kept), at="posted_at")
    run(project, source, "scored", target=FEATURES, as_of="posted_at")
    assert table(project, "scored__quarantine", "_row")["_row"].to_pylist() == sorted(refused["_row"].to_pylist())


def test_the_population_is_compared_with_the_reference_and_the_cost_is_stated(tmp_path: Path) -> None:
    project = scoring.project_at(tmp_path, batch_price=(3.6, "EUR"))
    like, other = scoring.numbers(4_000, seed=1, nulls=0), scoring.numbers(4_000, seed=2, nulls=0)
    shifted = other.set_column(1, "x0", pc.add(other["x0"], pa.scalar(1, pa.float32())))
    report = run(project, stored(tmp_path / "like.parquet", like), tmp_path / "a", chunk_rows=1_000)
    assert "x0" not in report.drifted
    report = run(project, stored(tmp_path / "other.parquet", shifted), tmp_path / "b", chunk_rows=1_000)
    assert "x0" in report.drifted
    assert report.sampled == 4_000
    assert {each.column for each in report.drift} == {*scoring.PLAIN, "probability"}
    assert report.cost == pytest.approx(report.seconds / 1_000, abs=1e-5)
    assert report.currency == "EUR"
    assert scoring.facts(tmp_path / "b")["drifted"] == list(report.drifted)


def test_no_rows_make_an_output_with_columns_and_no_rows(project: Project, tmp_path: Path) -> None:
    source = stored(tmp_path / "none.parquet", scoring.parcels(3).slice(0, 0))
    report = run(project, source, tmp_path / "out", target=FEATURES, as_of="posted_at")
    assert (report.rows, report.predicted) == (0, 0)
    found = pq.read_table(tmp_path / "out")
    assert found.num_rows == 0
    assert {"prediction_id", "hub", "probability", "digest"} <= set(found.column_names)
    run(project, source, "scored", target=FEATURES, as_of="posted_at")
    assert "probability" in (project.lake.scan("scored").schema or pa.schema([])).names


def test_columns_are_kept_as_asked(project: Project, tmp_path: Path) -> None:
    rows = scoring.numbers(20).append_column("note", pa.array(["n"] * 20))
    source = stored(tmp_path / "rows.parquet", rows)
    run(project, source, tmp_path / "out", keep=("note", "x1"))
    found = pq.read_table(tmp_path / "out")
    assert found.column_names[:4] == ["prediction_id", "note", "x1", "probability"]


def _parcels(tmp_path: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    return stored(tmp_path / "rows.parquet", change(scoring.parcels(10)))


def _renamed(*names: str) -> Callable[[pa.Table], pa.Table]:
    return lambda rows: rows.rename_columns(list(names))


def _naive(rows: pa.Table) -> pa.Table:
    return rows.set_column(3, "posted_at", rows["posted_at"].cast(pa.timestamp("us")))


@pytest.mark.parametrize(
    ("change", "options", "kind", "what"),
    [
        (lambda rows: rows.drop_columns(["hub"]), {}, InvalidData, r"lacks \['hub'\], by which features are read"),
        (lambda rows: rows.drop_columns(["weight"]), {}, InvalidData, r"lacks \['weight'\]"),
        (_naive, {"as_of": "posted_at"}, InvalidData, "is timestamp\\[us\\], which is not a time with a UTC offset"),
        (lambda rows: rows, {"as_of": "sent_at"}, InvalidData, "has no column 'sent_at' to read features as of"),
        (lambda rows: rows, {"as_of": "2026-01-05T10:00:00"}, Invalid, "has no UTC offset"),
        (lambda rows: rows, {"keep": ("colour",)}, InvalidData, "has no column 'colour' to keep"),
        (_renamed("at", "hub", "weight", "posted_at"), {}, InvalidData, r"'at' of the input .* has the name"),
        (_renamed("HubLoad.backlog", "hub", "weight", "posted_at"), {}, InvalidData, "a feature's name"),
        (lambda rows: rows.set_column(2, "weight", pa.array(["3"] * 10)), {}, InvalidData, "weight"),
        (lambda rows: rows, {"target": "nowhere"}, NotFound, "nowhere"),
        (lambda rows: rows, {"target": f"{FEATURES}:9"}, NotFound, "9"),
    ],
)  # fmt: skip
def test_a_wrong_input_is_named(
    change: Any, options: dict[str, Any], kind: type[MainspringError], what: str, project: Project, tmp_path: Path
) -> None:
    source = _parcels(tmp_path, change)
    with pytest.raises(kind, match=what) as raised:
        run(project, source, tmp_path / "out", **{"target": FEATURES, **options})
    assert raised.value.fix
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*.parquet"))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda rows: rows.drop_columns(["x2"]), "lacks the column 'x2', which the model takes"),
        (lambda rows: rows.set_column(1, "x0", pa.array(["1"] * 10)), r"'x0' of the input .* is string, but"),
        (_renamed("digest", "x0", "x1", "x2", "x3"), r"'digest' of the input .* has the name"),
    ],
)  # fmt: skip
def test_a_wrong_column_of_the_model_is_named(change: Any, what: str, project: Project, tmp_path: Path) -> None:
    source = stored(tmp_path / "rows.parquet", change(scoring.numbers(10)))
    with pytest.raises(InvalidData, match=what):
        run(project, source, tmp_path / "out")


def test_files_of_different_schemas_are_refused_with_the_file(project: Project, tmp_path: Path) -> None:
    rows = scoring.numbers(10)
    stored(tmp_path / "in" / "a.parquet", rows)
    wide = rows.set_column(1, "x0", rows["x0"].cast(pa.float64()))
    for name, other, what in (("b", rows.drop_columns(["x3"]), "no column 'x3'"), ("c", wide, "'x0' is double in")):
        path = stored(tmp_path / "in" / f"{name}.parquet", other)
        with pytest.raises(InvalidData, match=rf"{what}|{name}\.parquet"):
            run(project, tmp_path / "in", tmp_path / "out")
        path.unlink()
    texts = tmp_path / "in" / "d.parquet"
    texts.write_text("id,x0\n1,2\n")
    with pytest.raises(InvalidData, match=r"d\.parquet cannot be read as Parquet"):
        run(project, tmp_path / "in", tmp_path / "out")


def test_an_output_that_is_there_is_left_alone(project: Project, tmp_path: Path) -> None:
    source = stored(tmp_path / "rows.parquet", scoring.numbers(10))
    run(project, source, tmp_path / "out")
    with pytest.raises(Conflict, match=r"is there already: run .* wrote it"):
        run(project, source, tmp_path / "out")
    with pytest.raises(Conflict, match="has predictions for"):
        run(project, stored(tmp_path / "other.parquet", scoring.numbers(5)), tmp_path / "out", new=True)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("mine")
    with pytest.raises(Conflict, match="no batch run wrote it"):
        run(project, source, tmp_path / "own")
    with pytest.raises(Conflict, match="cannot hold predictions"):
        run(project, source, "scans")
    project.lake.append("mine", scoring.numbers(3).to_batches(), scoring.numbers(3).schema, key="1")
    with pytest.raises(Conflict, match="'mine' is there already"):
        run(project, source, "mine")
    assert project.lake.tables() == [name for name in project.lake.tables() if "__batches" not in name]


def test_sources_that_are_not_there_are_named(project: Project, tmp_path: Path) -> None:
    for source, what in (
        ("nothing", "There is no table 'nothing'"),
        (tmp_path / "none.parquet", "no file"),
        (tmp_path / "*.parquet", "No Parquet file matches"),
    ):
        with pytest.raises(NotFound, match=what):
            run(project, source, tmp_path / "out")
    for query, what in (("SELECT * FROM nothing", "cannot be run"), ("SELECT 1; SELECT 2", "no single SELECT")):
        with pytest.raises(Invalid, match=what):
            run(project, query, tmp_path / "out")


def test_an_input_that_changed_under_an_unfinished_run_is_refused(project: Project, tmp_path: Path) -> None:
    source = stored(tmp_path / "rows.parquet", scoring.numbers(200))

    def stop(done: int, total: int, left: float | None) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(project, source, tmp_path / "out", progress=stop)
    stored(source, scoring.numbers(201))
    with pytest.raises(Conflict, match=r"rows\.parquet was changed since this batch run was planned"):
        run(project, source, tmp_path / "out")
    with pytest.raises(Conflict, match="has an unfinished run of network"):
        run(project, source, tmp_path / "out", target=f"{NETWORK}:1")


def test_a_confined_run_reads_and_writes_the_project_alone(project: Project, tmp_path: Path) -> None:
    inside = tmp_path / "project"
    stored(inside / "rows.parquet", scoring.numbers(10))
    outside = stored(tmp_path / "rows.parquet", scoring.numbers(10))
    run(project, "./rows.parquet", "./out", confined=inside)
    assert pq.read_table(inside / "out").num_rows == 10
    for source, output in ((outside, "./other"), ("../rows.parquet", "./other"), ("./rows.parquet", "../other")):
        with pytest.raises(Invalid, match="outside of the project's folder"):
            run(project, source, output, confined=inside)
    with pytest.raises(Invalid, match="cannot be run"):
        run(project, f"SELECT * FROM '{outside}'", "./other", confined=inside)
    assert run(project, f"SELECT * FROM '{outside}'", tmp_path / "other").predicted == 10


def test_progress_tells_rows_and_the_end(project: Project, tmp_path: Path) -> None:
    told: list[tuple[int, int, float | None]] = []
    source = stored(tmp_path / "rows.parquet", scoring.numbers(200))
    run(project, source, tmp_path / "out", threads=1, progress=lambda *said: told.append(said))
    assert [said[:2] for said in told] == [(0, 200), (50, 200), (100, 200), (150, 200), (200, 200)]
    assert told[0][2] is None
    assert told[-1][2] == 0.0


def test_what_is_scored_is_let_go_without_a_collection_of_garbage(project: Project, tmp_path: Path) -> None:
    source = stored(tmp_path / "rows.parquet", scoring.numbers(20_000, nulls=0))
    gc.disable()
    try:
        before = pa.total_allocated_bytes()
        run(project, source, tmp_path / "out", chunk_rows=1_000)
        assert pa.total_allocated_bytes() - before < 50_000  # the inputs of all chunks have 320,000
    finally:
        gc.enable()


def test_a_damaged_chunk_is_named(project: Project, tmp_path: Path) -> None:
    source = stored(tmp_path / "rows.parquet", scoring.numbers(60))
    run(project, source, tmp_path / "out")
    output = FolderOutput(tmp_path / "out")
    (plan,) = output.runs()
    part = sorted((tmp_path / "out").glob("*.parquet"))[0]
    part.write_bytes(part.read_bytes()[:-7])
    with pytest.raises(MainspringError, match=part.name):
        output.done(plan, range(plan.chunks))
    (tmp_path / "out" / "_batch" / f"{plan.run}.plan.json").write_bytes(
        msgspec.json.encode(json.loads(msgspec.json.encode(msgspec.structs.replace(plan, format=2))))
    )
    with pytest.raises(MainspringError, match="has the format 2"):
        output.runs()
