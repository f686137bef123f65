"""A project in code and in notebooks: its definitions, its features as frames, its runs and its tables.

`import mainspring as ms; project = ms.open("flights")`. Opening reads the settings; everything else, the project's own
modules included, is loaded when it is first used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
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

    from mainspring.data.model import IngestReport, Source
    from mainspring.data.profile import TableProfile
    from mainspring.features.model import FeatureGroup, FeatureView, MaterialiseReport
    from mainspring.operations.declared import Named
    from mainspring.operations.features.choosing import Choice, Chosen
    from mainspring.operations.features.file import FeatureFile
    from mainspring.operations.features.frames import Kind
    from mainspring.operations.features.online import OnlineFeatures
    from mainspring.operations.features.reading import When
    from mainspring.operations.features.reports import Plan, Verifications
    from mainspring.operations.features.table import FeatureTable
    from mainspring.operations.models.adding import Added
    from mainspring.project import Project
    from mainspring.project.definitions.applied import Change
    from mainspring.registry.searching import RunRow
    from mainspring.serving.model import Endpoint
    from mainspring.training.model import Model

_ONLINE_KEPT = 128  # online reads that stay prepared


def open_folder(folder: str | os.PathLike[str] = ".", *, profile: str | None = None) -> OpenedProject:
    """Open the project in `folder`, or in the nearest folder above it that has a `mainspring.toml`.

    Args:
        profile: Which profile of `mainspring.toml`; else `MAINSPRING_PROFILE`, else the file's own, else `local`.

    Raises:
        NotFound: There is no such folder, project or profile.
        Invalid: A setting is wrong.
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
        self._online: tuple[object, dict[Any, OnlineFeatures]] = (None, {})  # of which definitions, by what is named

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

    # Its features as frames

    @overload
    def training_set(self, of: Chosen | Sequence[Chosen], labels: Any = ..., *, at: str | None = ...,
                     since: When | None = ..., until: When | None = ..., as_: None = ..., memory_limit: str = ...,
                     progress: bool = ...) -> FeatureTable: ...  # fmt: skip
    @overload
    def training_set(self, of: Chosen | Sequence[Chosen], labels: Any = ..., *, at: str | None = ...,
                     since: When | None = ..., until: When | None = ..., as_: Literal["arrow"], memory_limit: str = ...,
                     progress: bool = ...) -> pa.Table: ...  # fmt: skip
    @overload
    def training_set(self, of: Chosen | Sequence[Chosen], labels: Any = ..., *, at: str | None = ...,
                     since: When | None = ..., until: When | None = ..., as_: Literal["pandas"],
                     memory_limit: str = ..., progress: bool = ...) -> pd.DataFrame: ...  # fmt: skip
    @overload
    def training_set(self, of: Chosen | Sequence[Chosen], labels: Any = ..., *, at: str | None = ...,
                     since: When | None = ..., until: When | None = ..., as_: Literal["polars"],
                     memory_limit: str = ..., progress: bool = ...) -> pl.DataFrame: ...  # fmt: skip

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
    ) -> Any:
        """Return features as they were known at each row's time.

        Of a model alone: its labelled observations made in `[since, until)`, by time, with its features and the label,
        as training reads them. With `labels`: those rows, in their order and with all their columns, and the features
        beside them.

        Args:
            of: A model's name, or views and features: `"OriginTraffic"`, `"Weather.temp"`, or the objects.
            labels: An Arrow table, a pandas or Polars frame, or a list of dictionaries with the entities' key columns,
                the request's fields that the features use, and a time.
            at: The column of `labels` with the time of each row; by default, of a model, the rule of its observations.
            since: Of a model without `labels`; an instant, such as "2013-07-01" or an aware datetime.
            until: Likewise; by default now. Labels that became known later are not used.
            as_: "arrow", "pandas" or "polars"; by default a `FeatureTable`, which shows itself and becomes each.
            memory_limit: What may be used before it spills to disk.
            progress: Whether to show progress, in a terminal or a notebook.

        Raises:
            NotFound: There is no such model, view or feature, or a source has no data yet.
            InvalidData: `labels` lack a column, a type does not fit, or a time is naive.
            MissingExtra: What `as_` asks for is not installed.
        """
        from mainspring.operations.features import frames, reading

        frames.check_kind(as_)
        choice = self._choose(of)
        spine, how = reading.Spine(labels, at, since, until), reading.How(memory_limit, progress)
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
    ) -> FeatureFile:
        """Write what `training_set` returns as a Parquet file, however large: neither rows nor result are in memory.

        Args:
            of: As `training_set` takes it; so are `at`, `since`, `until` and `progress`.
            labels: As `training_set` takes them, or the path of a Parquet file.
            to: The file, there whole or not at all; one that is there is replaced.
            memory_limit: What the engine may use; a piece of the rows comes on top of it. What exceeds it goes to
                the project's `.mainspring/tmp`.

        Returns:
            The file, which shows itself and is a path to whatever reads Parquet.

        Raises:
            NotFound: There is no such folder or file, model, view or feature, or a source has no data yet.
            InvalidData: `labels` lack a column, a type does not fit, or a time is naive.
            StorageFull: There is no room; `to` is as it was.
        """
        from mainspring.operations.features import reading, writing
        from mainspring.operations.features.progress_bar import steps

        choice = self._choose(of)
        with steps(choice.title, len(choice.views) + 2, progress) as step:
            writer = writing.TrainingSetWriter(self.services, choice, to, memory_limit, writing.Paced(step))
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
            rows: Rows with the entities' key columns and the request's fields that the features use, as `labels` are
                given; or one row, a dictionary of values, which is then returned as a dictionary with the features.
            as_: As `training_set` takes it.
            statuses: Whether to add, after each stored feature, what its value is worth: PRESENT, NULL, EXPIRED or
                MISSING.

        Raises:
            NotFound: There is no such model, view or feature, or a view has never been materialised.
            InvalidData: The rows lack a column, or a type does not fit.
            Unavailable: The store does not answer.
        """
        from mainspring.operations.features import frames, online

        frames.check_kind(as_)
        features = self._online_features(of)
        single = online.is_one(rows)
        if single and as_ is None:
            return features.one(rows, statuses=statuses)
        return features.many([rows] if single else rows, statuses=statuses).as_(as_)

    def _online_features(self, of: Chosen | Sequence[Chosen]) -> OnlineFeatures:
        """Return the online read of what is named, as it was prepared before by the same names or objects."""
        from mainspring.operations.features.online import OnlineFeatures

        definitions = self.services.definitions
        if self._online[0] is not definitions or len(self._online[1]) >= _ONLINE_KEPT:
            self._online = definitions, {}
        prepared = self._online[1]
        key = tuple(of) if isinstance(of, list) else of
        try:
            features = prepared.get(key)
        except TypeError:  # a feature as an object, which compares to an expression
            return OnlineFeatures(self.services, self._choose(of))
        if features is None:
            features = prepared[key] = OnlineFeatures(self.services, self._choose(of))
        return features

    def explain(self, of: Chosen | Sequence[Chosen], *, analyze: bool = False) -> Plan:
        """Return how features are read from the lake: what is read for each view, and the SQL.

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
            sample: About how many (entity, instant) pairs of each view.
            seed: The same seed looks at the same entities and instants.
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
        """Return training runs with their metrics, parameters and tags, by default the newest first.

        Args:
            where: A filter, such as `"metrics.holdout.auc > 0.5 and status = finished"`; see
                docs/reference/runs-filter.md.
            order: A column, and `desc` if the largest comes first, such as `"metrics.holdout.auc desc"`.
            limit: At most 1,000.

        Raises:
            Invalid: The filter or the order cannot be read, or names a metric, parameter or tag that no run has.
            NotFound: `model` has no run, and the project declares no such model.
        """
        from mainspring.operations.runs import find_runs

        return find_runs(self.services, model, filter_=where, order=order, limit=limit, by_hand=True)

    def profile(self, source: str, *, at: str = "now") -> TableProfile:
        """Return the number of rows of a source's table, and of each column nulls, range, quantiles, frequent values.

        Args:
            at: A dataset commit, a tag, or "now".

        Raises:
            NotFound: There is no such source or commit, the source has no data, or the version was vacuumed.
        """
        from mainspring.operations.data.versions import profile

        return profile(self.services, source, at)

    # What keeps it current

    def apply(self) -> list[Change]:
        """Check the definitions, store them, and return what changed."""
        from mainspring.operations.apply import apply

        return apply(self.services)[0]

    def ingest(self, source: str, data: Any, *, batch_id: str | None = None, nulls: Sequence[str] = ()) -> IngestReport:
        """Land rows in a source's table: a file's path, a frame, an iterable of dictionaries or batches."""
        from mainspring.operations.ingest import land

        return land(self.services, source, data, batch_id=batch_id, nulls=nulls)

    def materialize(self, *views: str | FeatureView) -> list[MaterialiseReport]:
        """Bring the online features of `views`, by default of all, up to date with the lake."""
        from mainspring.operations.materialize import materialise_views

        definitions = self.services.definitions
        chosen = [definitions.view(view) if isinstance(view, str) else view for view in views]
        return materialise_views(self.services, chosen or None)

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
        """Make a version of a network of torch, Keras or transformers: exported to ONNX, proved, signed.

        Args:
            examples: Input -> rows that it was not trained on, shape (rows, ...); see
                `training.equivalence.networks.export`.
            alias: Let it name the version; `champion` goes live wherever an endpoint serves it.
        """
        from mainspring.operations.models.adding import add_network

        return add_network(self.services, model, network, examples, outputs=outputs, sequences=sequences, alias=alias)

    def __repr__(self) -> str:
        return f"<mainspring project {self.name!r} in {self.folder}, profile {self.services.settings.profile!r}>"

    def _repr_html_(self) -> str:
        note = f"{self.folder}, profile {self.services.settings.profile}"
        shown = (self.features, self.sources, self.models, self.endpoints)
        return html.joined(
            html.title(self.name, note), *(html.Markup(each._repr_html_()) for each in shown if len(each))
        )
