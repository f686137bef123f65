"""A project opened in code: what it declares, training sets, online values, and what is said of wrong input."""

from __future__ import annotations

import datetime as dt
import html
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mainspring as ms
from kit.depot import MODEL, PARCELS, lay_out
from mainspring.core.errors import Invalid, InvalidData, NotFound, Unavailable
from mainspring.features.model import FeatureView
from mainspring.features.online import OnlineReader
from mainspring.operations.features.table import FeatureTable
from mainspring.operations.opened import OpenedProject
from mainspring.training.sets.assemble import labelled_observations

NEW_YEAR = "2026-01-01T00:00:00Z"
HUB = ["HubLoad.scans_3h", "HubLoad.mean_backlog_3h", "HubLoad.backlog"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> OpenedProject:
    """The depot's project, landed and materialised, all of it in code."""
    root = tmp_path_factory.mktemp("in-code") / "depot"
    lay_out(root)
    made = ms.open(root)
    made.apply()
    for source in ("posted", "scans", "deliveries"):
        made.ingest(source, str(root / f"{source}.csv"))
    made.materialize()
    return made


@pytest.fixture(scope="module")
def moments(project: OpenedProject) -> pd.DataFrame:
    """Rows of any order, some twice, some of nobody, with a column and an index of their own."""
    seen = project.training_set(MODEL, as_="pandas", progress=False).sample(50, random_state=1)
    frame = pd.DataFrame({"mine": range(52), "hub": [*seen["hub"], None, "nowhere"],
                          "when": [*seen["posted_at"], *seen["posted_at"][:2]]},
                         index=pd.Index([f"r{n}" for n in range(52)]))  # fmt: skip
    return pd.concat([frame, frame.iloc[:3]])


def test_opening_loads_nothing(project: OpenedProject) -> None:
    code = (
        f"import mainspring as ms, sys; print(ms.open({str(project.folder)!r})); "
        "print(sorted({n.partition('.')[0] for n in sys.modules} & "
        "{'numpy', 'pyarrow', 'pandas', 'polars', 'duckdb', 'sqlalchemy', 'rich', 'parcels', 'deltalake'}))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert told[0].startswith("<mainspring project 'depot' in ")
    assert told[1] == "[]"


def test_a_project_is_found_from_a_folder_inside_it(project: OpenedProject) -> None:
    assert ms.open(project.folder / "parcels").folder == project.folder
    assert project.name == "depot"


def test_what_is_no_project_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"There is no mainspring.toml in .*mainspring init"):
        ms.open(tmp_path)
    with pytest.raises(NotFound, match="There is no folder "):
        ms.open(tmp_path / "nowhere")


def test_definitions_are_mappings_that_complete_and_show_themselves(project: OpenedProject) -> None:
    assert list(project.features) == ["HubLoad", "Parcel"]
    assert list(project.sources) == ["posted", "scans", "deliveries"]
    assert (list(project.models), list(project.endpoints)) == ([MODEL], ["late-parcel"])
    assert project.features.HubLoad is project.features["HubLoad"]
    assert "HubLoad" in dir(project.features)
    assert project.features._ipython_key_completions_() == ["HubLoad", "Parcel"]
    assert "backlog" in dir(project.features.HubLoad)
    assert "training_set" in dir(project)
    assert project.features.get("nothing") is None
    assert "nothing" not in project.models
    assert repr(project.models).startswith("late-parcel  binary  deliveries.late  HubLoad, Parcel")
    for shown in (project, project.features, project.sources, project.models, project.features["HubLoad"],
                  project.features["Parcel"], project.models[MODEL]):  # fmt: skip
        assert "<table>" in shown._repr_html_()
        assert "object at 0x" not in repr(shown)
    assert "mean" in project.features["HubLoad"]._repr_html_()


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda p: p.features["Hubload"], "no feature view 'Hubload'. Fix: did you mean 'HubLoad'?"),
        (
            lambda p: p.training_set("late-parcels"),
            "no model or feature view 'late-parcels'. Fix: did you mean 'late-parcel'?",
        ),
        (lambda p: p.training_set("HubLoad.backlogs", [{"hub": "north"}]), "did you mean 'HubLoad.backlog'?"),
        (lambda p: p.training_set("Hub.backlog", [{"hub": "north"}]), "did you mean 'HubLoad.backlog'?"),
        (
            lambda p: p.training_set(["HubLoad", "late-parcel"], []),
            "Model 'late-parcel' cannot be combined with features.",
        ),
    ],
)
def test_unknown_names_are_answered_with_what_was_meant(project: OpenedProject, ask: Any, words: str) -> None:
    with pytest.raises((NotFound, Invalid)) as refused:
        ask(project)
    assert words in str(refused.value)


def test_a_models_training_set_is_what_training_reads(project: OpenedProject) -> None:
    found = project.training_set(MODEL, progress=False)
    model = project.models[MODEL]
    wanted, left_out = labelled_observations(
        model, project.services.lake.scan, since=None, until=project.services.clock.now()
    )
    assert len(found) == len(wanted) == PARCELS - left_out.total
    assert found.features == (*HUB, "Parcel.weight")
    for name in (*found.features, "parcel", "hub", "_at"):
        assert found[name].equals(wanted[name]), name
    assert found["deliveries.late"].equals(wanted["_label"])
    assert (found.label, found.at) == ("deliveries.late", "_at")


def test_a_time_range_is_of_the_observations(project: OpenedProject) -> None:
    whole = project.training_set(MODEL, as_="pandas", progress=False)
    cut = whole["_at"].iloc[300]
    later = project.training_set(MODEL, since=cut, as_="pandas", progress=False)
    assert later["parcel"].tolist() == whole["parcel"].tolist()[300:]
    assert (project.training_set(MODEL, until=cut.isoformat(), as_="pandas", progress=False)["_at"] < cut).all()
    with pytest.raises(InvalidData, match=r"no labelled observations before 2001-01-01T00:00:00Z: .*since= and until="):
        project.training_set(MODEL, until="2001-01-01", progress=False)
    with pytest.raises(Invalid, match="has no UTC offset"):
        project.training_set(MODEL, until=dt.datetime(2026, 1, 1), progress=False)  # noqa: DTZ001


def test_labels_keep_their_order_their_columns_and_their_index(project: OpenedProject, moments: pd.DataFrame) -> None:
    found = project.training_set(["HubLoad"], moments, at="when", as_="pandas", progress=False)
    pd.testing.assert_frame_equal(found[["mine", "hub", "when"]], moments)
    assert list(found.columns) == ["mine", "hub", "when", *HUB]
    assert found.loc["r50", "HubLoad.scans_3h"] == 0  # of no hub
    assert found.loc["r51", HUB[1:]].isna().all()
    assert found["HubLoad.backlog"].notna().sum() > 40


def test_every_kind_of_labels_gives_the_same(project: OpenedProject, moments: pd.DataFrame) -> None:
    table = pa.Table.from_pandas(moments, preserve_index=False)
    wanted = project.training_set("HubLoad", table, at="when", as_="arrow", progress=False)
    in_new_york = table.set_column(2, "when", table["when"].cast(pa.timestamp("ms", tz="America/New_York")))
    dictionaries = table.to_pylist()
    texts = [{**row, "when": row["when"].isoformat()} for row in dictionaries]
    for labels in (moments, pl.from_arrow(table), dictionaries, texts, in_new_york):
        found = project.training_set("HubLoad", labels, at="when", as_="arrow", progress=False)
        assert found.select(HUB).equals(wanted.select(HUB))


def test_single_features_are_columns_of_their_own_in_the_order_asked(project: OpenedProject) -> None:
    view = project.features["HubLoad"]
    assert isinstance(view, FeatureView)
    labels = [{"hub": "north", "at": NEW_YEAR, "weight": 2.5}]
    wanted = [view["backlog"], "Parcel.weight", "HubLoad.scans_3h"]
    found = project.training_set(wanted, labels, at="at", progress=False)
    assert found.columns == ["hub", "at", "weight", "HubLoad.backlog", "Parcel.weight", "HubLoad.scans_3h"]
    assert found["Parcel.weight"].to_pylist() == [2.5]


def test_a_view_that_is_only_an_idea_can_be_tried(project: OpenedProject, moments: pd.DataFrame) -> None:
    scans = project.sources["scans"]

    @ms.feature_view(entity=project.features.HubLoad.entity, source=scans)
    class Idea:
        scans_3h = ms.count(window="3h")
        highest_1d = ms.max("backlog", window="1d")
        a_scan = ms.col("highest_1d") / ms.col("scans_3h")

    found = project.training_set([Idea, "HubLoad.scans_3h"], moments, at="when", as_="pandas", progress=False)
    assert found["Idea.scans_3h"].equals(found["HubLoad.scans_3h"].rename("Idea.scans_3h"))
    assert found["Idea.a_scan"].notna().sum() > 40
    with pytest.raises(NotFound, match="The online store has no values of Idea for the current definitions"):
        project.online(Idea, {"hub": "north"})


def test_on_demand_features_of_a_view_that_was_never_materialised_are_refused(project: OpenedProject) -> None:
    @ms.feature_view(entity=project.features.HubLoad.entity, source=project.sources["scans"])
    class Idea:
        scans_3h = ms.count(window="3h")

    @ms.on_demand_features
    class Trip:
        a_scan = ms.col("weight") / Idea.scans_3h

    row = {"hub": "north", "weight": 1.0}
    for rows in (row, [row]):
        with pytest.raises(NotFound, match="The online store has no values of Idea for the current definitions"):
            project.online(Trip, rows)


def test_a_models_own_rule_tells_the_time_of_labels(project: OpenedProject) -> None:
    own = project.training_set(MODEL, as_="arrow", progress=False)
    labels = own.select(["parcel", "hub", "weight", "posted_at"])
    found = project.training_set(MODEL, labels, progress=False)
    assert found.at == "_at"
    assert found.table.select(found.features).equals(own.select(found.features))
    with pytest.raises(InvalidData, match="The labels lack 'posted_at'"):
        project.training_set(MODEL, labels.drop_columns(["posted_at"]), progress=False)


def test_no_rows_are_no_rows(project: OpenedProject, moments: pd.DataFrame) -> None:
    for nothing in (moments.iloc[:0], pl.from_pandas(moments).clear(), pa.Table.from_pandas(moments).slice(0, 0)):
        found = project.training_set("HubLoad", nothing, at="when", as_="arrow", progress=False)
        assert (found.num_rows, found.schema.field("HubLoad.scans_3h").type) == (0, pa.int64())
    assert len(project.online("HubLoad", pa.table({"hub": pa.array([], pa.string())}))) == 0


@pytest.mark.parametrize(
    ("labels", "at", "words"),
    [
        ([{"when": NEW_YEAR}], "when", "The labels lack the key column 'hub' of HubLoad; they have ['when']"),
        ([{"hub": "north"}], "when", "The labels have no column 'when'."),
        ([{"hub": "north", "when": dt.datetime(2026, 1, 1)}], "when", "it has no time zone, so it is not an instant"),  # noqa: DTZ001
        (pd.DataFrame({"hub": ["n"], "when": pd.to_datetime(["2026"])}), "when", "df['when'].dt.tz_localize('UTC')"),
        ([{"hub": "north", "when": "2026-01-01T00:00:00"}], "when", "has no UTC offset"),
        ([{"hub": "north", "when": "yesterday"}], "when", "'yesterday' is not an ISO 8601 time"),
        ([{"hub": "north", "when": 1_700_000_000}], "when", "Column 'when' of the labels is int64, not instants."),
        ([{"hub": "north", "when": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}], None, "Fix: say at='when'."),
        ([{"hub": 7, "when": NEW_YEAR}], "when", "Column 'hub' of the observations is int64, not String."),
        ([{"hub": "n", "when": NEW_YEAR, "HubLoad.backlog": 1.0}], "when", "already have a column 'HubLoad.backlog'"),
        ([], "when", "The labels are an empty list"),
        (pd.DataFrame(), "when", "The labels lack the key column 'hub'"),
        (pd.DataFrame([["n", "n", "2026"]], columns=["hub", "hub", "when"]), "when", "several columns named 'hub'"),
        (None, None, "HubLoad needs rows to read, but no labels are given."),
    ],
)  # fmt: skip
def test_wrong_labels_are_refused_with_the_way_out(project: OpenedProject, labels: Any, at: Any, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        project.training_set("HubLoad", labels, at=at, progress=False)
    assert words in str(refused.value)
    assert refused.value.fix


def test_since_and_labels_do_not_go_together(project: OpenedProject, moments: pd.DataFrame) -> None:
    with pytest.raises(Invalid, match="filter the labels instead"):
        project.training_set("HubLoad", moments, at="when", since="2026-01-01")


def test_online_is_a_dictionary_for_one_row_and_a_frame_for_rows(project: OpenedProject) -> None:
    one = project.online(MODEL, {"hub": "north", "weight": 3.0})
    assert list(one) == ["hub", "weight", *HUB, "Parcel.weight"]
    assert one["Parcel.weight"] == 3.0
    many = project.online("HubLoad", {"hub": ["north", "nowhere", None]}, statuses=True)
    assert isinstance(many, FeatureTable)
    assert many.columns == ["hub", *(name + suffix for name in HUB for suffix in ("", ".status"))]
    assert many["HubLoad.backlog.status"].to_pylist() == ["PRESENT", "MISSING", "MISSING"]
    assert many["HubLoad.backlog"].to_pylist() == [one["HubLoad.backlog"], None, None]
    frame = project.online(["HubLoad.backlog"], pl.DataFrame({"hub": ["north"]}), as_="polars")
    assert isinstance(frame, pl.DataFrame)
    assert frame.to_dicts() == [{"hub": "north", "HubLoad.backlog": one["HubLoad.backlog"]}]


@pytest.mark.parametrize("of", [MODEL, "HubLoad", ["HubLoad.backlog", "Parcel"]])
@pytest.mark.parametrize(
    "row",
    [
        {"hub": "north", "weight": 3.1},
        {"weight": 1e300, "hub": "nowhere", "mine": None, "more": True, "n": -(2**63), "when": dt.datetime.now(dt.UTC)},
        {
            "hub": "nørth",
            "weight": float("nan"),
            "naive": dt.datetime.fromisoformat("2026-01-01"),
            "day": dt.date(2026, 1, 1),
        },
        {"hub": "north", "weight": 3},
        {"hub": None, "weight": None},
        {"hub": "north", "weight": 1.0, "large": 2**63},
        {"hub": "\ud800", "weight": 1.0},
        {"hub": "north", "weight": "heavy"},
        {"hub": b"north", "weight": 1.0},
        {"hub": 3, "weight": 1.0},
        {"hub": "north", "weight": True},
        {"hub": "north", "weight": 1.0, 3: 4},
        {"hub": "north", "weight": 1.0, "HubLoad.backlog": 1.0},
        {"weight": 1.0},
    ],
)
@pytest.mark.parametrize("statuses", [False, True])
def test_one_row_is_read_as_one_of_several_is(project: OpenedProject, of: Any, row: Any, statuses: bool) -> None:
    def read(rows: Any) -> Any:
        try:
            found = project.online(of, rows, statuses=statuses)
        except Exception as error:  # of any kind, as long as it is the same one
            return type(error), str(error)
        one = found if isinstance(found, dict) else found.to_arrow().to_pylist()[0]
        return [(name, type(value), repr(value) if value != value else value) for name, value in one.items()]

    assert read(row) == read([row])


def test_the_second_online_read_does_little_beside_the_store(project: OpenedProject) -> None:
    reader = OnlineReader([project.services.definitions.views["HubLoad"]], project.services.online)
    now = project.services.clock.now()

    def calls(read: Callable[[], object]) -> int:
        """How many functions are called in a read that is not the first."""
        count = 0

        def called(frame: object, event: str, arg: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        read()
        sys.setprofile(called)
        try:
            read()
        finally:
            sys.setprofile(None)
        return count

    floor = calls(lambda: reader.read({"hub": ["north"]}, now))
    assert calls(lambda: project.online("HubLoad", {"hub": "north"})) < 2.5 * floor


def test_online_equals_offline_now(project: OpenedProject) -> None:
    hubs = pa.table({"hub": ["north", "south", "nowhere"]})
    online = project.online("HubLoad", hubs, as_="arrow")
    instant = pa.array([project.services.clock.now()] * 3, pa.timestamp("us", tz="UTC"))
    offline = project.training_set("HubLoad", hubs.append_column("at", instant), at="at", as_="arrow", progress=False)
    assert online.select(HUB).to_pydict() == offline.select(HUB).to_pydict()


def test_wrong_rows_are_refused(project: OpenedProject) -> None:
    with pytest.raises(InvalidData, match="The rows lack the field 'weight' of late-parcel"):
        project.online(MODEL, {"hub": "north"})
    with pytest.raises(InvalidData, match="'hub' of the observations is int64, not String"):
        project.online("HubLoad", {"hub": 3})


def test_a_store_that_does_not_answer_is_said(project: OpenedProject, tmp_path: Path) -> None:
    root = tmp_path / "depot"
    shutil.copytree(project.folder, root)
    toml = root / "mainspring.toml"
    toml.write_text(toml.read_text() + '\n[profiles.away]\nonline = "redis://127.0.0.1:1/0"\n')
    away = ms.open(root, profile="away")
    with pytest.raises(Unavailable):
        away.online("HubLoad", {"hub": "north"})


def test_a_training_set_shows_its_shape_its_time_its_nulls_and_its_first_rows(project: OpenedProject) -> None:
    labels = [{"hub": "<b>north</b>", "at": NEW_YEAR}, {"hub": "south", "at": "2026-02-01T00:00:00Z"}]
    found = project.training_set("HubLoad", labels, at="at", progress=False)
    shown = found._repr_html_()
    assert html.escape("<b>north</b>") in shown
    assert "<b>north" not in shown
    for words in ("2 rows x 3 features", "100.0% null", "row 1", "HubLoad.mean_backlog_3h"):
        assert words in shown
        assert words in repr(found) or words == "row 1"
    assert found.shape == (2, 5)
    assert pl.DataFrame(found).columns == found.columns  # any reader of Arrow streams takes it
    whole = project.training_set(MODEL, progress=False)
    assert f"{PARCELS} rows x 4 features, 20" in repr(whole).splitlines()[0]


def test_unknown_kinds_of_frames_are_refused_before_any_work(project: OpenedProject) -> None:
    with pytest.raises(Invalid, match="as_='spark' is not a kind of frame"):
        project.training_set(MODEL, as_="spark")  # type: ignore[call-overload]


def test_a_plan_and_a_verification_show_themselves(project: OpenedProject) -> None:
    plan = project.explain(MODEL)
    assert [step.view for step in plan] == ["HubLoad", "HubLoad", "Parcel"]
    assert "ASOF JOIN" in plan.sql
    assert "<details>" in plan._repr_html_()
    assert "HubLoad: last values from scans version 0" in repr(plan)
    found = project.verify("HubLoad", sample=16, progress=False)
    assert found.equal
    assert [view.view for view in found] == ["HubLoad"]
    assert "48 values offline and online" in repr(found)
    assert "no difference" in found._repr_html_()


def test_runs_are_filtered_and_ordered(project: OpenedProject) -> None:
    assert project.runs() == []
    for name, auc in [("first", 0.7), ("second", 0.9), ("third", 0.8)]:
        run = project.services.tracking.start(MODEL, {"mlflow.runName": name}, 0)
        project.services.tracking.log(run, metrics=[("holdout.auc", auc, 0, 0)])
        project.services.tracking.finish(run, "FINISHED", 1)
    found = project.runs("holdout.auc > 0.75", model=MODEL, order="metrics.holdout.auc desc")
    assert [run.metrics["holdout.auc"] for run in found] == [0.9, 0.8]
    assert len(project.runs(limit=1)) == 1
    with pytest.raises(Invalid, match=r"No run has a .*did you mean 'holdout.auc'"):
        project.runs("holdout.uac > 0.75")
    with pytest.raises(NotFound):
        project.runs(model="nothing")


def test_a_table_has_a_profile_now_and_at_a_commit(project: OpenedProject) -> None:
    now = project.profile("scans")
    assert now.rows == project.ingest("scans", str(project.folder / "scans.csv")).already > 0
    assert {"hub", "backlog"} <= {column.column for column in now.columns}
    with pytest.raises(NotFound):
        project.profile("scans", at="no-such-tag")


def test_a_loader_reads_a_version_of_a_table(project: OpenedProject) -> None:
    loader = ms.Loader(project.scan("scans"), inputs=["backlog"], targets="hub", categories=["hub"])
    stored = project.services.lake.scan("scans").files or ()
    rows = pa.concat_tables(pq.read_table(file, columns=["hub", "backlog"]) for file in sorted(stored))
    ((backlog, hub),) = loader.stored(len(loader))
    assert backlog[:, 0].tolist() == rows["backlog"].to_pylist()
    assert [loader.categories["hub"][code] for code in hub] == rows["hub"].to_pylist()
    with pytest.raises(NotFound):
        project.scan("scans", at="no-such-tag")
