"""`mainspring status`: live versions and their state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.tables import size_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from mainspring.operations.answering_status import AnswersStatus, LanguageModelStatus
    from mainspring.operations.collection_checks import CollectionStatus
    from mainspring.operations.status import EndpointStatus, OpenIncident, StreamLine


_NAMED = 4  # drifted columns that are named


@make("status", reads_only=True)
def command(call: Call) -> None:
    """Show the live versions, and the state of endpoints, sources and stores."""
    from mainspring.operations.status import status

    found = status(call.project)

    def show(console: Console) -> None:
        console.print(f"[bold]{found.project}[/] · profile {found.profile}")
        show_incidents(console, found.incidents)
        if found.up:
            console.print(f"  up        {found.up.told}")
        else:
            console.print("  up        no: run `mainspring up`")
        for endpoint in found.endpoints:
            show_endpoint(console, endpoint)
        for source in found.sources:
            state = "no data yet" if source.version is None else f"table version {source.version}"
            console.print(f"  source    {source.source}: {state}")
        for stream in found.streams:
            show_stream(console, stream)
        for collection in found.collections:
            show_collection(console, collection)
        for model in found.language_models:
            show_model(console, model)
        for chain in found.answers:
            show_answers(console, chain)
        said = f"[red]{escape(found.online.problem)}[/]" if found.online.problem else "answers"
        console.print(f"  store     {escape(found.online.address)}: {said}", soft_wrap=True)
        for problem in found.invalid_policies:
            console.print(f"  policies  [red]{escape(problem)} The last valid ones are in force.[/]", soft_wrap=True)
        if found.damaged_segments:
            console.print(
                f"  log       [red]{found.damaged_segments} damaged segments are set aside: run `mainspring doctor`[/]"
            )

    call.result(found, show)


def show_collection(console: Console, collection: CollectionStatus) -> None:
    """Print one collection: what it has, how fresh it is, and how well it finds."""
    behind = ", [yellow]its source has newer data[/]" if collection.behind else ""
    state = f"built {collection.built_at}{behind}" if collection.built_at else "[yellow]never built[/]"
    building = ", being built" if collection.building else ""
    has = "" if collection.chunks is None else f"{collection.chunks:,} chunks of {collection.documents:,} documents, "
    console.print(f"  documents {collection.collection}: {has}{state}{building}", soft_wrap=True)
    recall = collection.recall
    if recall is not None and recall.value is not None:
        console.print(
            f"            {collection.metric} {recall.value:.3f} ({recall.low:.3f} to {recall.high:.3f}) over "
            f"{recall.queries:,} queries"
        )
    if collection.refused:
        console.print(
            f"            [yellow]{collection.refused:,} documents left out: run `mainspring collections show "
            f"{collection.collection}`[/]"
        )


def show_model(console: Console, model: LanguageModelStatus) -> None:
    """Print one language model: its upstreams, and how often it answered."""
    told = f"{model.answers_today:,}" if model.answers_today else "no"
    console.print(f"  model     {model.model} on {', '.join(model.upstreams)}: {told} answers today", soft_wrap=True)


def show_answers(console: Console, chain: AnswersStatus) -> None:
    """Print one chain of answers: its versions that answer, and what they answer from."""
    versions = ", ".join(
        f"version {version}" + (f" ({share:.0%})" if share < 1 else "") for version, share in chain.versions.items()
    )
    by = f" by {chain.model}" if chain.model else ""
    state = versions or ("[yellow]nothing yet[/]" if chain.problem else "as declared")
    today = ""
    if chain.answers_today:
        today = f"; {chain.answers_today:,} answers today, {chain.not_found_today:,} of them not found"
    console.print(f"  answers   {chain.answers} from {chain.collection}{by}: {state}{today}", soft_wrap=True)
    if chain.problem:
        console.print(f"            [yellow]{escape(chain.problem)}[/]", soft_wrap=True)


def show_stream(console: Console, stream: StreamLine) -> None:
    """Print one stream."""
    waits = "" if not stream.lag else f", {stream.lag:,} messages wait"
    if waits and stream.lag_s:
        waits += f" for {stream.lag_s:,.0f} s"
    style = "default" if stream.state == "running" else "yellow"
    console.print(f"  stream    {stream.stream} ({stream.kind}): [{style}]{stream.state}[/]{waits}")
    if stream.problem:
        console.print(f"            [yellow]{escape(stream.problem)}[/]", soft_wrap=True)


def show_incidents(console: Console, incidents: Sequence[OpenIncident]) -> None:
    """Print open incidents, two lines each."""
    for incident in incidents:
        colour = "red" if incident.level == "page" else "yellow"
        said = f"{incident.cause}: {incident.detail}" if incident.detail else incident.cause
        console.print(f"  [{colour}]{incident.level:<8}[/]  {escape(said)}", soft_wrap=True)
        console.print(f"            since {incident.since}: mainspring incidents show {incident.id}", soft_wrap=True)


def show_endpoint(console: Console, endpoint: EndpointStatus) -> None:
    """Print one endpoint: its versions, quality, objectives and drift."""
    versions = ", ".join(f"version {version}" for version in endpoint.versions) or "nothing yet"
    console.print(f"  endpoint  [bold]{endpoint.endpoint}[/] serves {endpoint.model}: {versions}")
    if endpoint.problem:
        console.print(f"            [yellow]{escape(endpoint.problem)}[/]", soft_wrap=True)
    if endpoint.shed:
        console.print(f"            [yellow]{escape(endpoint.shed)}[/]", soft_wrap=True)
    for device in endpoint.devices:
        style = "yellow" if device.reason else "default"
        console.print(f"            [{style}]{escape(device.said())}[/]", soft_wrap=True)
    known = endpoint.quality_by_version
    if endpoint.predictions:
        many = "prediction" if endpoint.predictions == 1 else "predictions"
        console.print(f"            {endpoint.predictions:,} {many}{'' if known else ' · no labels yet'}")
    for version, found_quality in known.items():
        figures = ", ".join(f"{name} {value:.3f}" for name, value in found_quality.quality.items())
        console.print(
            f"            predicted by version {version}: {figures or 'no figures'} "
            f"over {found_quality.labels:,} labels of the newest window that has any"
        )
    if endpoint.executors or endpoint.cache is not None:
        _show_use(console, endpoint)
    for promise in endpoint.objectives:
        left = "no events yet" if promise.budget_left is None else f"{promise.budget_left:.1%} of the budget left"
        style = {"page": "red", "ticket": "yellow"}.get(promise.alert, "default")
        console.print(f"            [{style}]{promise.about}: {left}[/]")
    if drifted := endpoint.drifted_columns:
        named = ", ".join(drifted[:_NAMED]) + (f" and {len(drifted) - _NAMED} more" if drifted[_NAMED:] else "")
        console.print(
            f"            {len(drifted)} columns differ from training, "
            f"{len(endpoint.alerting_columns)} of them in two windows in a row: {named}",
            soft_wrap=True,
            markup=False,
        )


def _show_use(console: Console, endpoint: EndpointStatus) -> None:
    """Print the executors, the memory and the cache of an endpoint."""
    if endpoint.executors:
        console.print(f"            executors: {endpoint.executors}, {size_text(endpoint.model_bytes or 0)} of memory")
    if (cache := endpoint.cache) is not None:
        console.print(
            f"            cache: {cache.hits:,} hits, {cache.shared:,} shared, {cache.misses:,} misses, "
            f"{cache.evictions:,} evictions; {cache.answers:,} answers of {size_text(cache.nbytes)}",
            soft_wrap=True,
        )
