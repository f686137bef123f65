"""A training set written to a file is the one that is returned, cell by cell, whatever asks for it."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mainspring as ms
from kit import prefork
from kit.depot import MODEL, PARCELS, lay_out
from mainspring.core.errors import Invalid, InvalidData, NotFound, StorageFull
from mainspring.features.offline import pieces, placing
from mainspring.operations.features.file import FeatureFile
from mainspring.operations.opened import OpenedProject

NEW_YEAR = "2026-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> OpenedProject:
    root = tmp_path_factory.mktemp("files") / "depot"
    lay_out(root)
    made = ms.open(root)
    made.apply()
    for source in ("posted", "scans", "deliveries"):
        made.ingest(source, str(root / f"{source}.csv"))
    return made


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_ROWS", 100)
    monkeypatch.setattr(placing, "PIECE_ROWS", 70)


@pytest.fixture
def labels(project: OpenedProject) -> pa.Table:
    """Rows in any order, some of nobody, some of no time, with columns and types of somebody's own."""
    rng = random.Random(3)
    made = project.training_set(MODEL, as_="arrow", progress=False)
    moments = made["_at"].to_pylist()
    rows, in_paris = 350, pa.timestamp("ms", tz="Europe/Paris")
    return pa.table(
        {
            "note": pa.array([rng.choice([None, "a", "Ω"]) for _ in range(rows)], pa.string()).dictionary_encode(),
            "weight": pa.array([rng.choice([None, rng.random() * 9]) for _ in range(rows)], pa.float32()),
            "hub": pa.array([rng.choice(["north", "south", "nowhere", None]) for _ in range(rows)], pa.string()),
            "tags": pa.array([[n] * (n % 3) for n in range(rows)], pa.list_(pa.int64())),
            "when": pa.array([rng.choice([*moments, None]) for _ in range(rows)], in_paris),
        }
    )


def test_a_models_own_is_written_as_it_is_returned(project: OpenedProject, tmp_path: Path) -> None:
    until = project.services.clock.now()  # both know as much
    wanted = project.training_set(MODEL, until=until, progress=False)
    cut = wanted["_at"][300].as_py()
    written = project.write_training_set(MODEL, to=tmp_path / "all.parquet", until=until, progress=False)
    assert pq.read_table(written).equals(wanted.table)
    assert (len(written), written.at, written.label, written.features, written.columns, written.notes) == (
        len(wanted), wanted.at, wanted.label, wanted.features, wanted.columns, wanted.notes,
    )  # fmt: skip
    later = project.training_set(MODEL, since=cut, until=until, as_="arrow", progress=False)
    written = project.write_training_set(MODEL, to=tmp_path / "later.parquet", since=cut, until=until, progress=False)
    assert pq.read_table(written).equals(later)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.parquet", "later.parquet"]
    assert list((project.folder / ".mainspring" / "tmp").iterdir()) == []


def test_observations_without_a_label_yet_are_left_out_and_counted(project: OpenedProject, tmp_path: Path) -> None:
    until = project.training_set(MODEL, as_="arrow", progress=False)["_at"][500].as_py()
    wanted = project.training_set(MODEL, until=until, progress=False)
    written = project.write_training_set(MODEL, to=tmp_path / "cut.parquet", until=until, progress=False)
    assert pq.read_table(written).equals(wanted.table)
    assert wanted.notes
    assert written.notes == wanted.notes
    with pytest.raises(InvalidData, match="no labelled observations before 2001-01-01"):
        project.write_training_set(MODEL, to=tmp_path / "none.parquet", until="2001-01-01", progress=False)
    assert not (tmp_path / "none.parquet").exists()


@pytest.mark.parametrize("rows", [0, 1, 99, 100, 101, 350])
def test_labels_of_every_kind_get_what_they_are_given_in_memory(
    project: OpenedProject, labels: pa.Table, tmp_path: Path, rows: int
) -> None:
    of = ["Parcel.weight", "HubLoad.backlog", "HubLoad.scans_3h"]
    given = labels.slice(0, rows)
    pq.write_table(given, tmp_path / "labels.parquet", row_group_size=60)
    read_back = pq.read_table(tmp_path / "labels.parquet")
    wanted = project.training_set(of, read_back, at="when", as_="arrow", progress=False)
    for asked in (tmp_path / "labels.parquet", str(tmp_path / "labels.parquet"), read_back):
        to = tmp_path / "out.parquet"
        written = project.write_training_set(of, asked, at="when", to=str(to), progress=False)
        found = pq.read_table(to)
        assert found.column_names == wanted.column_names == [*labels.column_names, *of]
        assert found.schema.types == wanted.schema.types
        assert found.to_pylist() == wanted.to_pylist()
        assert len(written) == rows


def test_frames_and_texts_of_times_are_taken_too(project: OpenedProject, labels: pa.Table, tmp_path: Path) -> None:
    plain = labels.select(["hub", "when"]).to_pylist()
    texts = [{**row, "when": None if row["when"] is None else row["when"].isoformat()} for row in plain]
    pq.write_table(pa.Table.from_pylist(texts), tmp_path / "texts.parquet")
    to = tmp_path / "out.parquet"
    for asked in (plain, texts, pd.DataFrame(texts), pl.DataFrame(plain), tmp_path / "texts.parquet"):
        project.write_training_set("HubLoad", asked, at="when", to=to, progress=False)
        in_memory = pq.read_table(asked) if isinstance(asked, Path) else asked
        wanted = project.training_set("HubLoad", in_memory, at="when", as_="arrow", progress=False)
        assert pq.read_table(to).to_pylist() == wanted.to_pylist()


def test_a_column_of_a_feature_that_is_not_asked_for_is_kept(
    project: OpenedProject, labels: pa.Table, tmp_path: Path
) -> None:
    given = labels.append_column("HubLoad.scans_3h", pa.array(range(len(labels)), pa.int32()))
    found = project.training_set("HubLoad.backlog", given, at="when", as_="arrow", progress=False)
    assert found.select(given.column_names).equals(given)
    written = project.write_training_set(
        "HubLoad.backlog", given, at="when", to=tmp_path / "out.parquet", progress=False
    )
    assert pq.read_table(written).to_pylist() == found.to_pylist()


def test_a_models_own_rule_tells_the_time_of_labels(project: OpenedProject, tmp_path: Path) -> None:
    own = project.training_set(MODEL, as_="arrow", progress=False).select(["parcel", "hub", "weight", "posted_at"])
    pq.write_table(own, tmp_path / "own.parquet")
    wanted = project.training_set(MODEL, own, progress=False)
    written = project.write_training_set(MODEL, tmp_path / "own.parquet", to=tmp_path / "o.parquet", progress=False)
    assert pq.read_table(written).equals(wanted.table)
    assert written.at == wanted.at == "_at"


def test_what_cannot_be_written_is_said_before_any_work(project: OpenedProject, tmp_path: Path) -> None:
    asked = tmp_path / "labels.parquet"
    pq.write_table(pa.table({"hub": ["north"], "when": [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)]}), asked)

    def refused(kind: Any, words: str, **how: Any) -> None:
        with pytest.raises(kind, match=words) as raised:
            project.write_training_set(**{"of": "HubLoad", "labels": asked, "at": "when", "progress": False, **how})
        assert raised.value.fix

    refused(Invalid, r"is not a Parquet file name", to=tmp_path / "out.csv")
    refused(Invalid, r"is not a Parquet file name", to=tmp_path)
    refused(NotFound, r"There is no folder .*nowhere", to=tmp_path / "nowhere" / "out.parquet")
    refused(Invalid, r"is the file of the labels", to=asked)
    refused(Invalid, "filter the labels instead", to=tmp_path / "out.parquet", since="2026-01-01")
    refused(Invalid, "no labels are given", to=tmp_path / "out.parquet", labels=None)
    refused(NotFound, r"file of observations .*gone", to=tmp_path / "out.parquet", labels=tmp_path / "gone.parquet")
    refused(InvalidData, "have no column 'at'", to=tmp_path / "out.parquet", at="at")
    pq.write_table(pa.table({"hub": ["north"], "when": [dt.datetime(2026, 1, 1)]}), asked)  # noqa: DTZ001
    refused(InvalidData, "is not an instant", to=tmp_path / "out.parquet")
    (tmp_path / "text.parquet").write_text("hub,when\n")
    refused(InvalidData, "cannot be read", to=tmp_path / "out.parquet", labels=tmp_path / "text.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_wrong_time_far_inside_leaves_nothing(project: OpenedProject, tmp_path: Path) -> None:
    times = [NEW_YEAR] * 250 + ["yesterday"]
    pq.write_table(pa.table({"hub": ["north"] * 251, "when": times}), tmp_path / "labels.parquet")
    (tmp_path / "out.parquet").write_bytes(b"as it was")
    with pytest.raises(InvalidData, match="'yesterday' is not an ISO 8601 time"):
        project.write_training_set(
            "HubLoad", tmp_path / "labels.parquet", at="when", to=tmp_path / "out.parquet", progress=False
        )
    assert (tmp_path / "out.parquet").read_bytes() == b"as it was"
    assert len(list(tmp_path.iterdir())) == 2
    assert list((project.folder / ".mainspring" / "tmp").iterdir()) == []


@pytest.mark.parametrize("limit", [2_000, 8_000, 25_000])
def test_a_full_disk_is_said_and_leaves_the_file_as_it_was(project: OpenedProject, tmp_path: Path, limit: int) -> None:
    to = tmp_path / "out.parquet"
    to.write_bytes(b"as it was")
    until = project.services.clock.now()
    project.training_set(MODEL, until=until, progress=False)  # whatever is cached is there before space is short
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(StorageFull):
            project.write_training_set(MODEL, to=to, until=until, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]
    assert to.read_bytes() == b"as it was"
    assert list((project.folder / ".mainspring" / "tmp").iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next(project: OpenedProject, tmp_path: Path) -> None:
    temp, to = project.folder / ".mainspring" / "tmp", tmp_path / "out.parquet"
    code = (
        "import sys, time, mainspring as ms\n"
        "from mainspring.operations.features import reading, writing\n"
        f"project = ms.open({str(project.folder)!r})\n"
        f"writer = writing.TrainingSetWriter(project.services, project._choose({MODEL!r}), {str(to)!r}, '1GB', "
        "lambda what, done, total: (print(what, flush=True), time.sleep(60)) if what == 'rows' else None)\n"
        "writer.write(reading.Spine())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "rows\n"
        victim.send_signal(signal.SIGKILL)
    assert list(temp.iterdir())
    assert not to.exists()
    assert list(tmp_path.iterdir())  # a part, by another name
    project.write_training_set(MODEL, to=to, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]
    assert list(temp.iterdir()) == []


def test_a_file_shows_itself_and_is_a_path(project: OpenedProject, tmp_path: Path) -> None:
    written = project.write_training_set(MODEL, to=tmp_path / "a b.parquet", progress=False)
    assert isinstance(written, FeatureFile)
    assert os.fspath(written) == str(tmp_path / "a b.parquet")
    assert len(pd.read_parquet(written)) == len(written) == PARCELS
    assert pl.scan_parquet(written.path).select(pl.len()).collect().item() == PARCELS
    assert repr(written).startswith(f"{MODEL}: {PARCELS} rows x 4 features in {tmp_path}/a b.parquet, ")
    assert "HubLoad.mean_backlog_3h  float" in repr(written)
    assert written.head(3).table.equals(project.training_set(MODEL, progress=False).table.slice(0, 3))
    for words in ("4 features", "<table>", "deliveries.late", "label"):
        assert words in written._repr_html_()
    nothing = project.write_training_set(
        "HubLoad", pa.table({"hub": pa.array([], pa.string()), "when": pa.array([], pa.timestamp("us", "UTC"))}),
        at="when", to=tmp_path / "no.parquet", progress=False,
    )  # fmt: skip
    assert "0 rows" in repr(nothing)
    assert "<table>" in nothing._repr_html_()


def test_progress_names_views_and_then_counts_rows(project: OpenedProject, tmp_path: Path) -> None:
    from mainspring.operations.features import reading, writing

    told: list[tuple[str, int, int | None]] = []
    writer = writing.TrainingSetWriter(
        project.services, project._choose(MODEL), tmp_path / "o.parquet", "1GB", lambda *how: told.append(how)
    )
    writer.write(reading.Spine())
    assert [name for name, _, total in told if total is None] == ["observations", "HubLoad"]
    rows = [(done, total) for name, done, total in told if name == writing.ROWS]
    assert rows == [(min(done, PARCELS), PARCELS) for done in range(100, PARCELS + 100, 100)]
    said: list[tuple[str, bool]] = []
    paced = writing.Paced(lambda words, *, begins=True: said.append((words, begins)))
    for how in (("HubLoad", 0, None), ("rows", 0, 5000), ("rows", 5000, 5000)):
        paced(*how)
    assert said == [("HubLoad", True), ("0 of 5,000 rows", True), ("5,000 of 5,000 rows", False)]
    assert writing.pace(100, time.monotonic() - 10) == ", 10 rows/s"


def test_the_command_writes_the_same(project: OpenedProject, labels: pa.Table, tmp_path: Path) -> None:
    def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [prefork.programs() / "mainspring", "features", "read", *arguments]
        return subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=False)

    pq.write_table(labels, tmp_path / "labels.parquet")
    to = str(tmp_path / "out.parquet")
    done = ran("HubLoad.backlog", "Parcel", "--labels", str(tmp_path / "labels.parquet"), "--at", "when", "--to", to,
               "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["rows"], document["path"], document["features"]) == (350, to, ["HubLoad.backlog", "Parcel.weight"])
    wanted = project.training_set(["HubLoad.backlog", "Parcel"], labels, at="when", as_="arrow", progress=False)
    assert pq.read_table(to).to_pylist() == wanted.to_pylist()
    done = ran(MODEL, "--to", to, "--since", "2020-01-01")
    assert done.returncode == 0, done.stderr
    assert f"{PARCELS} rows x 4 features" in done.stdout
    assert len(pq.read_table(to)) == PARCELS
    assert ran(MODEL, "--to", str(tmp_path / "out.csv")).returncode == 2
