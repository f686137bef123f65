"""Replay of stream endpoints: the recorded batches again, compared with what was sent."""

from __future__ import annotations

from collections.abc import Callable

from mainspring.core.errors import Invalid, NotFound
from mainspring.operations.stream_endpoints.payloads import rows_of
from mainspring.operations.stream_endpoints.versions import Versions
from mainspring.project import Project
from mainspring.serving.streaming.event import Output
from mainspring.serving.streaming.replay import PartitionReplay, Replay


def replay(
    project: Project, name: str, since: str | None = None, emit: Callable[[Output], None] = lambda _: None
) -> list[PartitionReplay]:
    """Replay an endpoint's partitions, or one of them from an offset on; nothing is sent.

    Args:
        since: `PARTITION:OFFSET`.
        emit: Called with each output.

    Raises:
        Invalid: `since` has another form, or is older than the recorded batches.
        NotFound: The endpoint has processed nothing.
    """
    endpoint = project.definitions.stream_endpoint(name)
    states = project.stream_states(name)
    if not (partitions := states.partitions()):
        raise NotFound(
            f"The stream endpoint {name!r} has processed nothing here.", fix=f"run `mainspring streams run {name}`."
        )
    chosen: dict[int, int | None] = dict.fromkeys(partitions)
    if since is not None:
        partition, colon, offset = since.partition(":")
        if not (colon and partition.isdigit() and offset.isdigit()) or int(partition) not in partitions:
            raise Invalid(
                f"{since!r} is no place in the topic {endpoint.topic!r}.",
                fix=f"write PARTITION:OFFSET, with one of the partitions {partitions}.",
            )
        chosen = {int(partition): int(offset)}
    versions = Versions(project, endpoint)
    again = Replay(endpoint, project.streams, versions.recorded, rows_of(project, endpoint))
    return [again.run(states.open(number, durable=False), number, offset, emit) for number, offset in chosen.items()]
