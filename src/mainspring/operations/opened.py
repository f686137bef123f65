"""A project in code and in notebooks: definitions, features as frames, runs and tables.

`import mainspring as ms; project = ms.open("flights")`. Opening reads the settings; everything else, including the
project's own modules, is loaded on first use.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from mainspring.core import html
from mainspring.core.errors import NotFound
from mainspring.operations import declared

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from mainspring.data.model import IngestReport, Source, TableScan
    from mainspring.data.profile import TableProfile
    from mainspring.data.warehouse.pulling import PullReport
    from mainspring.features.model import FeatureGroup, FeatureView, MaterialiseReport
    from mainspring.ledger.model import Prediction
    from mainspring.llm.prompts import Prompt
    from mainspring.operations.declared import Named
    from mainspring.operations.features.choosing import Choice, Chosen
    from mainspring.operations.features.file import FeatureFile
    from mainspring.operations.features.frames import Kind
    from mainspring.operations.features.online import OnlineFeatures
    from mainspring.operations.features.reading import When
    from mainspring.operations.features.reports import Plan, Verifications
    from mainspring.operations.features.table import FeatureTable
    from mainspring.operations.models.adding import Added
    from mainspring.operations.pipelines.control import RunState
    from mainspring.operations.rollout.in_code import Rollouts
    from mainspring.operations.topics import Produced
    from mainspring.project import Project
    from mainspring.project.definitions.applied import Change
    from mainspring.registry.searching import RunRow
    from mainspring.serving.model import Endpoint
    from mainspring.training.gate_kinds import Gate
    from mainspring.training.model import Model

_ONLINE_KEPT = 128  # maximum number of prepared online reads


def open_folder(folder: str | os.PathLike[str] = ".", *, profile: str | None = None) -> OpenedProject:
    """Open the project in `folder`, or in the nearest folder above it that has a `mainspring.toml`.

    Args:
        profile: Profile of `mainspring.toml`; by default `MAINSPRING_PROFILE`, else the file's `profile`, else `local`.

    Raises:
        NotFound: There is no such folder, project or profile.
        Invalid: A setting is invalid.
    """
    from mainspring.project import open_project
    from mainspring.project.settings import find_project, load_settings

    start = Path(folder).expanduser()
    if not start.is_dir():
        raise NotFound(f"There is no folder {start}.", fix="name the folder of the project's mainspring.toml.")
    try:
        root = find_project(start)
    except NotFound as error:
        raise NotFound(
            error.what,
            fix="open the folder of a project's mainspring.toml, or create a project: `mainspring init NAME`.",
        ) from None
    return OpenedProject(open_project(load_settings(root, profile)))


class OpenedProject:
    """An opened project, for code and notebooks. Created by `ms.open`.

    Attributes:
        services: Every adapter and service of the project. Internal: a minor version may change it.
    """

    def __init__(self, services: Project) -> None:
        self.services = services
        self._online: tuple[object, dict[Any, OnlineFeatures]] = (
            None,
            {},
        )  # the definitions, and the reads by names or objects

    @property
    def name(self) -> str:
        return self.services.settings.project

    @property
    def folder(self) -> Path:
        return self.services.settings.root

    # What it declares

    @cached_property
    def features(self) -> Named[FeatureGroup]:
        """The feature views and the request features, by name."""
        return declared.features(self.services.definitions)

    @cached_property
    def sources(self) -> Named[Source]:
        """The sources, by name."""
        return declared.sources(self.services.definitions)

    @cached_property
    def models(self) -> Named[Model]:
        """The models, by name."""
        return declared.models(self.services.definitions)

    @cached_property
    def endpoints(self) -> Named[Endpoint]:
        """The endpoints, by name."""
        return declared.endpoints(self.services.definitions)

    # Its pipelines

    def run_pipeline(self, name: str, **parameters: Any) -> str:
        """Start a run of a pipeline and return its id. A worker, or `mainspring pipelines run --here`, runs it.

        Raises:
            NotFound: There is no such pipeline.
            Invalid: It has no such parameter, or JSON cannot represent a value.
        """
        from mainspring.operations.pipelines.control import start

        return start(self.services, name, parameters).id

    def pipeline_run(self, run: str) -> RunState:
        """Return the state of a run: its job, its steps with their results.

        Raises:
            NotFound: There is no such run.
        """
        from mainspring.operations.pipelines.control import state

        return state(self.services, run)

    @cached_property
    def rollouts(self) -> Rollouts:
        """Rollouts: start one, look at it, end it."""
        from mainspring.operations.rollout.in_code import Rollouts

        return Rollouts(self.services)

    # Its features as frames

    @overload
    def training_set(self, of: Chosen | Sequence[Chosen], labels: Any = ..., *, at: str | None = ...,
                     since: When | None = ..., until: When | None = ..., as_: None = ..., memory_limit: str = ...,
                     progress: bool = ..., engine: str | None = ...) -> FeatureTable: ...  # fmt: skip
    @overload
    def training_set(self, of: Chosen | Sequence[Chosen], labels: Any = ..., *, at: str | None = ...,
                     since: When | None = ..., until: When | None = ..., as_: Literal["arrow"], memory_limit: str = ...,
                     progress: bool = ..., engine: str | None = ...) -> pa.Table: ...  # fmt: skip
    @overload
    def training_set(self, of: Chosen | Sequence[Chosen], labels: Any = ..., *, at: str | None = ...,
                     since: When | None = ..., until: When | None = ..., as_: Literal["pandas"],
                     memory_limit: str = ..., progress: bool = ...,
                     engine: str | None = ...) -> pd.DataFrame: ...  # fmt: skip
    @overload
    def training_set(self, of: Chosen | Sequence[Chosen], labels: Any = ..., *, at: str | None = ...,
                     since: When | None = ..., until: When | None = ..., as_: Literal["polars"],
                     memory_limit: str = ..., progress: bool = ...,
                     engine: str | None = ...) -> pl.DataFrame: ...  # fmt: skip

    def training_set(
        self,
        of: Chosen | Sequence[Chosen],
        labels: Any = None,
        *,
        at: str | None = None,
        since: When | None = None,
        until: When | None = None,
        as_: Kind | None = None,
        memory_limit: str = "2GB",
        progress: bool = True,
        engine: str | None = None,
    ) -> Any:
        """Return features as they were known at each row's time.

        For a model without `labels`: its labelled observations in `[since, until)`, ordered by time, with its features
            and the label, as in training. With `labels`: those rows, in their order and with all their columns, and the
            features beside them.

        Args:
            of: A model's name, or views and features: `"OriginTraffic"`, `"Weather.temp"`, or the objects.
            labels: An Arrow table, a pandas or Polars frame, or a list of dictionaries with the entities' key columns,
                the request's fields that the features use, and a time.
            at: Column of `labels` with the time of each row; by default, for a model, the rule of its observations.
            since: Start of a model's observations, without `labels`: an instant, such as "2013-07-01" or an aware
                datetime.
            until: Their end; by default now. Labels that became known later are not used.
            as_: "arrow", "pandas" or "polars"; by default a `FeatureTable`, which has a repr and converts to each.
            memory_limit: Memory that may be used before spilling to disk.
            progress: Whether to show progress, in a terminal or a notebook.
            engine: "lake" or "warehouse"; by default the profile's.

        Raises:
            NotFound: There is no such model, view or feature, or a source has no data yet.
            Invalid: The engine cannot give one of the features.
            InvalidData: `labels` lack a column, a type does not fit, or a time is naive.
            MissingExtra: The library of `as_` is not installed.
        """
        from mainspring.operations.features import frames, reading

        frames.check_kind(as_)
        choice = self._choose(of)
        spine, how = reading.Spine(labels, at, since, until), reading.How(memory_limit, progress, engine)
        return reading.read(self.services, choice, spine, how).as_(as_)

    def write_training_set(
        self,
        of: Chosen | Sequence[Chosen],
        labels: Any = None,
        *,
        to: str | os.PathLike[str],
        at: str | None = None,
        since: When | None = None,
        until: When | None = None,
        memory_limit: str = "2GB",
        progress: bool = True,
        engine: str | None = None,
    ) -> FeatureFile:
        """Write a training set of any size to a Parquet file; neither rows nor result are held in memory.

        Args:
            of: As for `training_set`, like `at`, `since`, `until`, `progress` and `engine`.
            labels: As for `training_set`, or the path of a Parquet file.
            to: Path of the file, which is written completely or not at all; an existing file is replaced.
            memory_limit: Memory of the engine, to which a piece of the rows is added. Larger data goes to the project's
                `.mainspring/tmp`.

        Returns:
            The file, which has a repr and can be used as a path.

        Raises:
            NotFound: There is no such folder or file, model, view or feature, or a source has no data yet.
            InvalidData: `labels` lack a column, a type does not fit, or a time is naive.
            StorageFull: There is no space; `to` is unchanged.
        """
        from mainspring.operations.features import reading, writing
        from mainspring.operations.features.progress_bar import steps

        choice = self._choose(of)
        with steps(choice.title, len(choice.views) + 2, progress) as step:
            writer = writing.TrainingSetWriter(self.services, choice, to, memory_limit, writing.Paced(step), engine)
            return writer.write(reading.Spine(labels, at, since, until))

    @overload
    def online(self, of: Chosen | Sequence[Chosen], rows: Mapping[str, Any], *, as_: None = ...,
               statuses: bool = ...) -> Any: ...  # fmt: skip
    @overload
    def online(self, of: Chosen | Sequence[Chosen], rows: Any, *, as_: None = ...,
               statuses: bool = ...) -> FeatureTable: ...  # fmt: skip
    @overload
    def online(self, of: Chosen | Sequence[Chosen], rows: Any, *, as_: Literal["arrow"],
               statuses: bool = ...) -> pa.Table: ...  # fmt: skip
    @overload
    def online(self, of: Chosen | Sequence[Chosen], rows: Any, *, as_: Literal["pandas"],
               statuses: bool = ...) -> pd.DataFrame: ...  # fmt: skip
    @overload
    def online(self, of: Chosen | Sequence[Chosen], rows: Any, *, as_: Literal["polars"],
               statuses: bool = ...) -> pl.DataFrame: ...  # fmt: skip

    def online(
        self, of: Chosen | Sequence[Chosen], rows: Any, *, as_: Kind | None = None, statuses: bool = False
    ) -> Any:
        """Return features as the online store has them now.

        Args:
            of: As `training_set` takes it.
            rows: Rows with the entities' key columns and the request's fields that the features use, in the forms of
                `labels`; or one row, a dictionary of values, which is returned as a dictionary with the features.
            as_: As `training_set` takes it.
            statuses: Whether to add a status after each stored feature: PRESENT, NULL, EXPIRED or MISSING.

        Raises:
            NotFound: There is no such model, view or feature, or a view has never been materialised.
            InvalidData: The rows lack a column, or a type does not fit.
            Unavailable: The store does not respond.
        """
        from mainspring.operations.features import frames, online

        frames.check_kind(as_)
        features = self._online_features(of)
        single = online.is_one(rows)
        if single and as_ is None:
            return features.one(rows, statuses=statuses)
        return features.many([rows] if single else rows, statuses=statuses).as_(as_)

    def _online_features(self, of: Chosen | Sequence[Chosen]) -> OnlineFeatures:
        """Return the online read of these features, cached by names or objects."""
        from mainspring.operations.features.online import OnlineFeatures

        definitions = self.services.definitions
        if self._online[0] is not definitions or len(self._online[1]) >= _ONLINE_KEPT:
            self._online = definitions, {}
        prepared = self._online[1]
        key = tuple(of) if isinstance(of, list) else of
        try:
            features = prepared.get(key)
        except TypeError:  # a feature object, whose comparison gives an expression
            return OnlineFeatures(self.services, self._choose(of))
        if features is None:
            features = prepared[key] = OnlineFeatures(self.services, self._choose(of))
        return features

    def explain(self, of: Chosen | Sequence[Chosen], *, analyze: bool = False) -> Plan:
        """Return the plan of an offline read: the steps per view, and the SQL.

        Args:
            of: As `training_set` takes it.
            analyze: Whether to ask DuckDB for its plans, which runs the statements on a sample.
        """
        from mainspring.operations.features.explaining import explain
        from mainspring.operations.features.reports import Plan

        return Plan(explain(self.services, of, analyze=analyze))

    def verify(
        self, of: Chosen | Sequence[Chosen], *, sample: int = 200, seed: int = 0, progress: bool = True
    ) -> Verifications:
        """Compare the offline, the online and a brute-force read on the project's own data.

        Args:
            of: As `training_set` takes it; whole views are compared.
            sample: Approximate number of (entity, instant) pairs per view.
            seed: Seed of the choice of entities and instants.
            progress: Whether to show progress, in a terminal or a notebook.
        """
        from mainspring.operations.features.progress_bar import by_stage, steps
        from mainspring.operations.features.reports import Verifications
        from mainspring.operations.features.verifying import verify

        with steps("verify", 2 * len(self._choose(of).views), progress) as step:
            return Verifications(verify(self.services, of, sample=sample, seed=seed, progress=by_stage(step)))

    def _choose(self, of: Chosen | Sequence[Chosen]) -> Choice:
        from mainspring.operations.features.choosing import choose

        return choose(self.services.definitions, of)

    # Its runs and its tables

    def runs(self, where: str = "", *, model: str | None = None, order: str = "", limit: int = 50) -> list[RunRow]:
        """Return training runs with their metrics, parameters and tags, by default newest first.

        Args:
            where: A filter, such as `"metrics.holdout.auc > 0.5 and status = finished"`; see
                docs/reference/runs-filter.md.
            order: A column, and `desc` if the largest comes first, such as `"metrics.holdout.auc desc"`.
            limit: At most 1,000.

        Raises:
            Invalid: The filter or the order cannot be parsed, or names a metric, parameter or tag that no run has.
            NotFound: `model` has no run, and the project declares no such model.
        """
        from mainspring.operations.runs import find_runs

        return find_runs(self.services, model, filter_=where, order=order, limit=limit, by_hand=True)

    def predictions(
        self,
        *,
        endpoint: str = "",
        version: str = "",
        key: str = "",
        score_from: str | float = "",
        score_to: str | float = "",
        label: str = "",
        status: str = "",
        since: str = "",
        until: str = "",
        limit: int = 50,
    ) -> list[Prediction]:
        """Return the newest logged predictions that fulfil all conditions, newest first.

        Args:
            key: `name=value` of an entity key, or the value of any; several are separated by commas.
            label: A value, or `known`, or `unknown`.
            status: Of at least one stored feature, such as `MISSING`.
            since: The first instant or day, ISO 8601; `until` is the instant behind the last, or the last day.

        Raises:
            Invalid: A condition is malformed.
        """
        from mainspring.operations.predictions import Conditions, list_predictions

        conditions = Conditions(
            endpoint=endpoint, version=version, key=key, score_from=str(score_from), score_to=str(score_to),
            label=label, status=status, since=since, until=until,
        )  # fmt: skip
        return [each.prediction for each in list_predictions(self.services, conditions, limit=limit).rows]

    def prompt(self, reference: str, *, key: str = "") -> Prompt:
        """Return a prompt as `apply` recorded it.

        Args:
            reference: `NAME`, its newest version, `NAME:VERSION` or `NAME@ALIAS`.
            key: Whose version it is, such as a user's id, where the alias has a canary.

        Raises:
            NotFound: There is none.
        """
        from mainspring.operations.prompts import prompt_version

        return prompt_version(self.services, reference, key).prompt

    def profile(self, source: str, *, at: str = "now") -> TableProfile:
        """Return the profile of a source's table: number of rows, and nulls, range, quantiles and frequent values per
        column.

        Args:
            at: A dataset commit, a tag, or "now".

        Raises:
            NotFound: There is no such source or commit, the source has no data, or the version was vacuumed.
        """
        from mainspring.operations.data.versions import profile

        return profile(self.services, source, at)

    def scan(self, source: str, *, at: str = "now") -> TableScan:
        """Return the files of a source's table, for `ms.Loader`; with all versions of facts, as they were ingested.

        Args:
            at: A dataset commit, a tag, or "now".

        Raises:
            NotFound: There is no such source or commit, the source has no data, or the version was vacuumed.
        """
        from mainspring.operations.data.versions import scan

        return scan(self.services, source, at)

    # What keeps it current

    def apply(self) -> list[Change]:
        """Check the definitions, store them, and return the changes."""
        from mainspring.operations.apply import apply

        return apply(self.services)[0]

    def ingest(self, source: str, data: Any, *, batch_id: str | None = None, nulls: Sequence[str] = ()) -> IngestReport:
        """Ingest rows into a source's table: a file's path, a frame, an iterable of dictionaries or batches."""
        from mainspring.operations.ingest import land

        return land(self.services, source, data, batch_id=batch_id, nulls=nulls)

    def ingest_from_warehouse(self, source: str, *, since: str | None = None) -> PullReport:
        """Ingest the rows of a source's table in the profile's warehouse that arrived since the last time, each once.

        Args:
            since: An arrival, as text: read the rows from there on, instead.

        Raises:
            Invalid: The profile has no warehouse, or does not name the source's column of arrivals.
            Conflict: The table no longer reaches to where it was read, or it is another.
        """
        from mainspring.operations.pulling import pull

        return pull(self.services, source, since=since)

    def produce(
        self, topic: str, rows: Iterable[Mapping[str, Any]], *, key: str | None = None, partitions: int = 0
    ) -> Produced:
        """Write rows as messages of a topic of the project's log, a JSON object each; they are durable on return.

        Args:
            rows: Dictionaries. Times need an offset from UTC.
            key: Column whose value is the key: messages of equal keys are in one partition, in their order.
            partitions: With a number, the topic is created with so many partitions if it is not there.

        Raises:
            NotFound: There is no such topic.
            InvalidData: A value cannot be written as JSON, or a time has no offset.
            Unavailable: The log did not respond; some rows may be written.
        """
        from mainspring.operations.topics import produce_rows

        return produce_rows(self.services, topic, rows, key, partitions)

    def spark_batches(self, source: str) -> Callable[[Any, int], None]:
        """Return a function for Spark's `foreachBatch`: each batch lands in `source` once, then its views are
        materialised.
        """
        from mainspring.operations.spark_batches import spark_batches

        return spark_batches(self.services, source)

    def materialize(self, *views: str | FeatureView) -> list[MaterialiseReport]:
        """Update the online features of `views`, by default of all, from the lake."""
        from mainspring.operations.materialize import materialise

        definitions = self.services.definitions
        chosen = [definitions.view(view) if isinstance(view, str) else view for view in views]
        return materialise(self.services, chosen or None)

    def register(
        self,
        model: str,
        network: Any,
        examples: Mapping[str, Any],
        *,
        outputs: Sequence[str] = (),
        sequences: bool | None = None,
        alias: str | None = None,
    ) -> Added:
        """Register a network of torch, Keras or transformers as a version: exported to ONNX, verified, signed.

        Args:
            examples: Input -> rows not used in training, shape (rows, ...); see `training.equivalence.networks.export`.
            alias: Alias to set on the version; `champion` goes live on every endpoint that serves it.
        """
        from mainspring.operations.models.adding import add_network

        return add_network(self.services, model, network, examples, outputs=outputs, sequences=sequences, alias=alias)

    def register_adapter(
        self,
        model: str,
        adapter: Any,
        held_out: tuple[Any, Any],
        *,
        base: str = "",
        gates: Sequence[Gate] = (),
        alias: str | None = None,
    ) -> Added:
        """Register the adapter of `ms.fit_lora` as a version: safetensors alone, measured, tied to its base, signed.

        Args:
            held_out: `(input_ids, labels)` as in training, of rows that it was not trained on.
            base: Name of the base, for people; what ties the adapter to it is the digest of its weights.
            gates: `ms.at_most` and `ms.at_least` on loss, perplexity, accuracy (of tokens), on the same of the base
                alone (`base_loss` and others), or on loss_gain, their difference.
            alias: Alias to set on the version if its gates pass.

        Raises:
            Conflict: A gate fails: the version is registered, and has no alias; or the project trains this model.
            Invalid: The adapter, the rows or a gate are of another kind.
        """
        from mainspring.operations.models.lora import add_adapter

        return add_adapter(self.services, model, adapter, held_out, base=base, gates=gates, alias=alias)

    def load_adapter(self, version: str, base: Any) -> Any:
        """Return a base with a registered adapter, `NAME:VERSION` or `NAME@ALIAS`; the base gets it in place.

        Raises:
            Conflict: The adapter was trained on other weights; the base is as it was.
            Corrupt: Its answers are not those from before it was stored.
        """
        from mainspring.operations.models.lora import load_adapter

        return load_adapter(self.services, version, base)

    def merge_adapter(self, version: str, base: Any, folder: str | Path) -> Path:
        """Write the base with the adapter added to its weights, as transformers and engines read it: safetensors.

        Raises:
            Conflict: See `load_adapter`; or the folder is there already.
            Corrupt: The merged model answers differently.
        """
        from mainspring.operations.models.lora import merge_adapter

        return merge_adapter(self.services, version, base, Path(folder))

    def __repr__(self) -> str:
        return f"<mainspring project {self.name!r} in {self.folder}, profile {self.services.settings.profile!r}>"

    def _repr_html_(self) -> str:
        note = f"{self.folder}, profile {self.services.settings.profile}"
        shown = (self.features, self.sources, self.models, self.endpoints)
        return html.joined(
            html.title(self.name, note), *(html.Markup(each._repr_html_()) for each in shown if len(each))
        )
