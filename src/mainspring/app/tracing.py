"""Spans of a process's requests, where the profile wants them. Only then is OpenTelemetry imported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mainspring.app.project import Project
from mainspring.core.errors import MissingExtra

if TYPE_CHECKING:
    from mainspring.serving.tracing import Tracing


def tracing_of(project: Project, instance: str) -> Tracing | None:
    """Return what makes spans and exports them, `None` if the profile wants none.

    Args:
        instance: What this process is called among the project's.

    Raises:
        MissingExtra: OpenTelemetry is not installed.
    """
    traces = project.settings.traces
    if traces is None:
        return None
    try:
        import opentelemetry.exporter.otlp.proto.http  # noqa: F401
        from opentelemetry.sdk.version import __version__ as sdk
    except ModuleNotFoundError as error:
        raise MissingExtra(f"Tracing ({error.name})", "otel") from error
    from mainspring.serving.tracing import Tracing, otlp

    return Tracing(
        otlp(traces.url),
        clock=project.wall,
        share=traces.share,
        about={
            "service.name": project.settings.project,
            "service.namespace": "mainspring",
            "service.instance.id": f"{instance}-{os.urandom(4).hex()}",
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.version": sdk,
        },
    )
