"""Signals: statements of a monitoring channel about one statistic, the input of incidents."""

from __future__ import annotations

import msgspec

CONTRACT, SURPRISE, JOINT, HARM, SERVICE, SILENCE = "contract", "surprise", "joint", "harm", "service", "silence"
ATTRIBUTION, SKEW, STREAM, FLEET, AUDIT = "attribution", "skew", "stream", "fleet", "audit"
CALLERS, BUDGET = "callers", "budget"
CLASSIFIER = "classifier"  # the statistic of the joint channel that is judged by week
CHANNELS = (CONTRACT, SKEW, SURPRISE, JOINT, ATTRIBUTION, HARM, SERVICE, STREAM, FLEET, AUDIT, CALLERS, BUDGET, SILENCE)


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """One statistic of one column, segment and version that left its expectation in a window.

    The distance from training is shown with each window, and is never a signal: seasons move it.

    Attributes:
        channel: One of `CHANNELS`.
        endpoint: Name of the endpoint; empty for a signal about the installation.
        statistic: What was measured: `nulls`, `unseen`, `out of range`, `mean`, `shape`, `correlation`, `auc`, ...
        start: Start of the window, UTC epoch microseconds.
        end: End of the window.
        severity: In units of the channel's threshold: 1 and more is an alarm.
        version: Of the model; empty for all of them.
        segment: Empty for the whole traffic; else `Schedule.carrier=UA`, several parts joined by ` and `.
        column: A feature by its full name or the score; empty for a statistic of no single column.
        caller: Id of the caller whom it is about; empty where it is about none.
        value: As measured; `None` where there is nothing to measure, as of silence.
        expected: The expectation; `None` without one.
        page: Whether a person should be woken; else the signal is a ticket.
        detail: One sentence that names the values.
    """

    channel: str
    endpoint: str
    statistic: str
    start: int
    end: int
    severity: float
    version: str = ""
    segment: str = ""
    column: str = ""
    value: float | None = None
    expected: float | None = None
    page: bool = False
    detail: str = ""
    caller: str = ""
