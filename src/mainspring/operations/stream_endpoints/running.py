"""Run of a stream endpoint: its runner over the project's log, stores and sinks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

from mainspring.operations.auditing import audit
from mainspring.operations.stream_endpoints.payloads import rows_of
from mainspring.operations.stream_endpoints.sharing import Leases
from mainspring.operations.stream_endpoints.versions import Versions
from mainspring.operations.streams.members import reporting
from mainspring.operations.streams.running import STARTED
from mainspring.project import Project
from mainspring.project.backends.monitoring import signed_posts
from mainspring.registry.processes import process_name
from mainspring.serving.streaming.declaring import TABLE, TOPIC, Sink, StreamEndpoint
from mainspring.serving.streaming.predictions import PredictionSink
from mainspring.serving.streaming.processor import DEAD_SINK
from mainspring.serving.streaming.runner import Runner, Share
from mainspring.serving.streaming.sinks import Refuse, SinkWriter, TableSink, TopicSink, WebhookSink, refusing


def run(project: Project, name: str, stop: threading.Event, *, idle_s: float | None = None) -> int:
    """Process a stream endpoint's topic until `stop` is set, or nothing came for `idle_s` seconds.

    Returns:
        The number of messages that were processed.

    Raises:
        NotFound: There is no such stream endpoint, or no such topic.
    """
    with running(project, project.definitions.stream_endpoint(name)) as runner:
        audit(project, STARTED, f"endpoint/{name}", f"by {os.uname().nodename}, process {os.getpid()}")
        return runner.run(stop, idle_s=idle_s)


@contextmanager
def running(project: Project, endpoint: StreamEndpoint) -> Iterator[Runner]:
    """Yield the runner of an endpoint, for this process's share of the partitions."""
    name = endpoint.name
    with (
        closing(Leases(name, process_name(), project.stream_store, project.locks, project.wall)) as leases,
        closing(build(project, endpoint, leases)) as runner,
        reporting(project, name, runner, leases),
    ):
        yield runner


def build(project: Project, endpoint: StreamEndpoint, share: Share) -> Runner:
    """Return the runner of an endpoint."""
    versions, lake, log = Versions(project, endpoint), project.lake, project.streams
    refuse = refusing(lake, endpoint.dead_letters)

    def writer(sink: Sink) -> SinkWriter:
        return _writer(project, endpoint, sink, refuse)

    return Runner(
        endpoint,
        log=log,
        states=project.stream_states(endpoint.name),
        share=share,
        arms=versions.live,
        sinks=[
            *map(writer, endpoint.to),
            TableSink(DEAD_SINK, endpoint.dead_letters, lake, f"{endpoint.name}/dead", dead=True),
            PredictionSink(endpoint.name, versions.recorder, project.predictions, project.prediction_log),
        ],
        wall=project.wall,
        rows=rows_of(project, endpoint),
    )


def _writer(project: Project, endpoint: StreamEndpoint, sink: Sink, refuse: Refuse) -> SinkWriter:
    if sink.kind == TOPIC:
        return TopicSink(sink.id, sink.name, project.streams, refuse)
    if sink.kind == TABLE:
        return TableSink(sink.id, sink.name, project.lake, f"{endpoint.name}/{sink.id}")
    return WebhookSink(sink.id, signed_posts(project.settings, sink.name, project.wall), refuse)
