"""Spans of a process's requests, if the profile enables them. Only then is OpenTelemetry imported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mainspring.core.errors import MissingExtra
from mainspring.project import Project

if TYPE_CHECKING:
    from mainspring.serving.plane.tracing import Tracing


def check_installed(what: str = "Tracing requests") -> None:
    """Raise if a package that OpenTelemetry's exporters need is missing.

    Args:
        what: The purpose, for the message.

    Raises:
        MissingExtra: One is missing.
    """
    for name in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
        try:
            there = find_spec(name) is not None
        except ModuleNotFoundError:  # not even the package around it
            there = False
        if not there:
            raise MissingExtra(what, "otel")


@contextmanager
def traced(project: Project, instance: str) -> Iterator[Tracing | None]:
    """Context with the result of `tracing_of`; its spans are exported at the end of the block."""
    tracing = tracing_of(project, instance)
    try:
        yield tracing
    finally:
        if tracing is not None:
            tracing.close()


def tracing_of(project: Project, instance: str) -> Tracing | None:
    """Return the tracer and exporter of spans, `None` if the profile has none.

    Args:
        instance: Name of this process within the project.

    Raises:
        MissingExtra: OpenTelemetry is not installed.
    """
    traces = project.settings.traces
    if traces is None:
        return None
    check_installed()
    from opentelemetry.sdk.version import __version__ as sdk

    from mainspring.serving.plane.tracing import Tracing, otlp

    return Tracing(
        otlp(traces.url),
        clock=project.wall,
        share=traces.share,
        about={
            **project.settings.labels,
            "service.name": project.settings.project,
            "service.namespace": "mainspring",
            "service.instance.id": f"{instance}-{os.urandom(4).hex()}",
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.version": sdk,
        },
    )
