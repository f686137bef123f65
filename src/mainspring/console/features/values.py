"""View models of the pages of feature views, for the templates and the API."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar
from urllib.parse import urlencode

from mainspring.console.background_cache import Looking
from mainspring.core.errors import Invalid, MainspringError, NotFound
from mainspring.core.schema import DType
from mainspring.core.time import HOUR, format_instant
from mainspring.features.describe.distributions import Distributions, distributions
from mainspring.features.describe.personal import columns_read
from mainspring.features.describe.wording import definition, wording
from mainspring.features.functions.model import DerivedSource
from mainspring.features.keys import typed_key
from mainspring.features.layout import feature_dtype, layout_of, slot
from mainspring.features.model import FeatureView
from mainspring.ledger.sealing import subject_named
from mainspring.operations.data import lineage as graph
from mainspring.operations.data.lineage import Lineage, Node, lineage, models_using
from mainspring.operations.features.deriving import FunctionCost, function_costs
from mainspring.operations.features.entity_values import EntityValues, entity_values
from mainspring.operations.features.search import owners, search
from mainspring.operations.features.view_freshness import ViewFreshness, view_freshness
from mainspring.operations.revealing import revealed
from mainspring.project import Project
from mainspring.security.model import Principal

KEY = "key."  # before a key's name in a query, so that no key is taken for another parameter
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ViewRow:
    """One view in the list. `matches` are the features that contain the search words."""

    name: str
    description: str
    entity: str
    keys: tuple[str, ...]
    source: str
    owner: str
    tags: Mapping[str, str]
    features: int
    models: tuple[str, ...]
    freshness: ViewFreshness
    matches: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OnDemand:
    """Features that are computed on demand: name -> formula."""

    name: str
    description: str
    owner: str
    features: Mapping[str, str]
    views: tuple[str, ...]
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FeatureList:
    """The requested views, of `total`; without a query, also the on-demand features."""

    views: tuple[ViewRow, ...]
    on_demand: tuple[OnDemand, ...]
    owners: tuple[str, ...]
    total: int
    now: int


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """One feature's definition. Durations are microseconds; `personal` are the PII columns it reads."""

    name: str
    dtype: str
    kind: str
    formula: str
    window: int | None
    ttl: int | None
    where: str | None
    default: float | None
    description: str
    columns: tuple[str, ...]
    personal: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ViewPage:
    """The definition of one view, and its freshness."""

    name: str
    description: str
    entity: str
    entity_description: str
    keys: Mapping[str, str]
    source: str
    owner: str
    tags: Mapping[str, str]
    slot: str
    features: tuple[FeatureRow, ...]
    models: tuple[str, ...]
    freshness: ViewFreshness
    lineage: Lineage
    problem: str | None  # reason why the lineage is incomplete
    parent: str | None  # source of the rows that a function computes the view from
    cost: FunctionCost | None  # of that function


@dataclass(frozen=True, slots=True)
class Seen(Generic[_T]):
    """A costly result: found, absent, pending, or the reason for its failure."""

    ready: bool
    found: _T | None
    problem: str | None
    _error: MainspringError | None = None  # behind the problem; msgspec leaves it out of documents

    @classmethod
    def failed(cls, error: MainspringError) -> Seen[_T]:
        return cls(True, None, str(error), error)

    def raise_failure(self) -> None:
        """Raise if it failed."""
        if self._error is not None:
            raise self._error


def feature_list(project: Project, words: str = "", owner: str | None = None) -> FeatureList:
    """Return the views that match the words and the owner; all by default."""
    definitions, now = project.definitions, project.clock.now()
    found = search(definitions.views.values(), words, owner)
    rows = tuple(
        ViewRow(
            name=one.view.name,
            description=one.view.description,
            entity=one.view.entity.name,
            keys=tuple(one.view.entity.keys),
            source=one.view.source.name,
            owner=one.view.owner,
            tags=dict(one.view.tags),
            features=len(one.view.names),
            models=models_using(definitions.models, one.view.name),
            freshness=_freshness(project, one.view, now),
            matches=one.features,
        )
        for one in found
    )
    asked = bool(words.strip()) or owner is not None
    demanded = () if asked else _on_demand(project)
    return FeatureList(rows, demanded, tuple(owners(definitions.views.values())), len(definitions.views), now)


def only(project: Project, found: FeatureList, names: Collection[str]) -> FeatureList:
    """Return a list as one sees it who may see the views of some names."""
    known = project.definitions.views
    if known.keys() <= set(names):
        return found
    owned = tuple(owners(known[name] for name in sorted(names)))
    views = tuple(row for row in found.views if row.name in names)
    return replace(found, views=views, on_demand=(), owners=owned, total=len(names))


def find_view(project: Project, name: str) -> FeatureView:
    """Return a declared view.

    Raises:
        NotFound: There is no view of this name.
    """
    view = project.definitions.views.get(name)
    if view is None:
        raise NotFound(f"There is no feature view {name!r}.", fix="GET /api/features lists them.")
    return view


def view_page(project: Project, view: FeatureView) -> ViewPage:
    """Return the page of a view."""
    whole, problem = project_lineage(project)
    return ViewPage(
        name=view.name,
        description=view.description,
        entity=view.entity.name,
        entity_description=view.entity.description,
        keys={name: dtype.value for name, dtype in view.entity.keys.items()},
        source=view.source.name,
        owner=view.owner,
        tags=dict(view.tags),
        slot=slot(view),
        features=tuple(_feature(view, name) for name in view.names),
        models=models_using(project.definitions.models, view.name),
        freshness=_freshness(project, view, project.clock.now(), visible=True),
        lineage=whole.around(graph.VIEW, view.name),
        problem=problem,
        parent=view.source.parent.name if isinstance(view.source, DerivedSource) else None,
        cost=function_costs(project).get(view.name),
    )


def project_lineage(project: Project) -> tuple[Lineage, str | None]:
    """Return the lineage of the whole project, with a note if the registry or the routes cannot be read."""
    definitions, problems = project.definitions, []

    def read(of: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return of()
        except MainspringError as error:
            problems.append(str(error))
            return otherwise

    found = lineage(
        definitions.sources,
        [*definitions.views.values(), *definitions.request_features.values()],
        definitions.models,
        definitions.endpoints,
        read(project.versions.all, []),
        read(project.routes.current, {}),
    )
    return found, " ".join(problems) or None


def page_of(node: Node) -> str | None:
    """Return the address of a node's page. Names are ids, so they need no quoting."""
    if node.kind == graph.SOURCE:
        return source_address(node.name)
    if node.kind == graph.VIEW:
        return f"/features/{node.name}"
    if node.kind == graph.MODEL:
        return f"/models/{node.name}"
    return f"/endpoints/{node.name}" if node.kind == graph.ENDPOINT else None


def source_address(name: str) -> str:
    """Return the address of a source's page. `/data/commits` is another page, so that name has a longer one."""
    return f"/data/{name}" if name != "commits" else f"/data/tables/{name}"


def rows_address(source: str) -> str:
    """Return the address of a source's newest rows."""
    return f"/data/tables/{source}/rows"


def over_time(project: Project, looking: Looking, view: FeatureView) -> Seen[Distributions]:
    """Return the distributions of the view's features over time, if they are ready soon."""
    now = project.clock.now()
    try:
        scan = project.lake.scan(view.source.name)
        # By the hour: the visible rows of one version of the table change as time passes.
        key = ("distributions", slot(view), tuple(view.names), scan.version, now // HOUR)
        ready, found = looking.at(key, lambda: distributions(view, scan, now))
    except NotFound:
        return Seen(True, None, None)
    except MainspringError as error:
        return Seen.failed(error)
    return Seen(ready, found, None)


def entity_keys(view: FeatureView, query: Mapping[str, str]) -> dict[str, str]:
    """Return the texts of the entity's keys in a query."""
    return {name: query[KEY + name] for name in view.entity.keys if KEY + name in query}


def entity_address(view: FeatureView, keys: Mapping[str, object]) -> str:
    """Return the address of an entity's values now; empty if `keys` lacks a key of the view's entity."""
    if any(keys.get(name) is None for name in view.entity.keys):
        return ""
    texts = {KEY + name: _typed(keys[name], dtype) for name, dtype in view.entity.keys.items()}
    return f"/features/{view.name}?{urlencode(texts)}#entity"


def _typed(value: object, dtype: DType) -> str:
    """Return a key as people type it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if dtype is DType.Timestamp and isinstance(value, int):
        return format_instant(value)
    return str(value)


def looked_up(
    project: Project, view: FeatureView, texts: Mapping[str, str], *, reveal_to: Principal | None = None
) -> EntityValues:
    """Return one entity's values now, online and offline.

    Args:
        reveal_to: Caller to whom the values are shown of personal columns that it may see, with an event in the audit
            log.

    Raises:
        Denied: This caller may see no personal value.
        Invalid: A key is missing, or is not of its type.
        Unavailable: The online store did not answer.
        Corrupt: The online store holds a damaged state.
    """
    long = next((name for name, text in texts.items() if len(text) > 1024), None)
    if long is not None:
        raise Invalid(f"The key {long!r} is over 1,024 characters long.", fix="give a shorter one.")
    key = typed_key(view.entity.keys, texts, f"entity {view.entity.name!r}")
    shown: tuple[str, ...] = ()
    if reveal_to is not None:
        about, resource = subject_named(key), f"view/{view.name}"
        shown = revealed(
            project, reveal_to, view.source.name, view.source.pii, "features.reveal", resource, subject=about
        )
    return entity_values(view, key, project.online, project.lake.scan, project.clock.now(), shown=shown)


def _freshness(project: Project, view: FeatureView, now: int, *, visible: bool = False) -> ViewFreshness:
    every = project.settings.materialise_every_us
    return view_freshness(view, project.lake, project.online, now, every, visible=visible)


def _on_demand(project: Project) -> tuple[OnDemand, ...]:
    definitions = project.definitions
    return tuple(
        OnDemand(
            group.name,
            group.description,
            group.owner,
            {name: wording(expression) for name, expression in group.features.items()},
            tuple(view.name for view in group.views),
            tuple(sorted(name for name, model in definitions.models.items() if _has(model.features, group.name))),
        )
        for group in sorted(definitions.request_features.values(), key=lambda group: group.name)
    )


def _has(groups: object, name: str) -> bool:
    return any(group.name == name for group in groups)  # type: ignore[attr-defined]


def _feature(view: FeatureView, name: str) -> FeatureRow:
    stored = view.features.get(name)
    columns = columns_read(view, name)
    return FeatureRow(
        name=name,
        dtype=feature_dtype(view, name).value,
        kind="derived" if stored is None else stored.kind,
        formula=definition(view, name),
        window=stored.window if stored is not None else None,
        ttl=stored.ttl if stored is not None else None,
        where=wording(stored.where) if stored is not None and stored.where is not None else None,
        default=layout_of(view).default(name) if stored is not None else None,
        description=stored.description if stored is not None else "",
        columns=columns,
        personal=tuple(sorted({*columns} & {*view.source.pii})),
    )
