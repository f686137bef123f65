"""Counters of gateway processes, read from Prometheus' text, and how much each grew between two readings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from mainspring.core.time import MINUTE, SECOND
from mainspring.monitoring.service.samples import REJECTIONS, REQUESTS, SECONDS, Sample

EVERY_US = MINUTE  # between two readings
GATEWAY = "process gateway"  # subject of what belongs to no endpoint
STARTED = "mainspring_gateway_start_time_seconds"
INFERENCES, FAILURES = "mainspring_inference_seconds", "mainspring_inference_failures"
Counts = dict[str, dict[str, float]]  # subject -> key -> count


class Reading(msgspec.Struct, frozen=True):
    """Counters of one gateway process since it started.

    Attributes:
        started: Start of the process, UTC epoch microseconds; another start is another process.
        counts: Subject -> key -> count, see `samples`; counts of 0 are left out.
        peaks: Subject -> key -> current value of a gauge.
    """

    started: int
    counts: Counts
    peaks: Counts = {}


class State(msgspec.Struct, frozen=True):
    """The last readings of a place.

    Attributes:
        at: Instant of the last look, UTC epoch microseconds.
        readings: Slot -> the last reading of its process.
    """

    at: int
    readings: dict[int, Reading] = {}


def read(text: str) -> Reading:
    """Return the counters in one process's text."""
    started = 0.0
    counts: Counts = defaultdict(lambda: defaultdict(float))
    peaks: Counts = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        if family.name == STARTED:
            started = family.samples[0].value
        elif family.name == INFERENCES:
            below: dict[tuple[str, str], float] = {}
            for sample in family.samples:
                endpoint, version = sample.labels["endpoint"], sample.labels["version"]
                if sample.name.endswith("_bucket"):
                    of = endpoint, version
                    bound = "inf" if sample.labels["le"] == "+Inf" else sample.labels["le"]
                    counts[endpoint][f"{SECONDS} {bound}"] += sample.value - below.get(of, 0.0)
                    below[of] = sample.value
                elif sample.name.endswith("_count"):
                    counts[endpoint][f"answered {version}"] += sample.value
                elif sample.name.endswith("_sum"):
                    counts[endpoint][f"took_s {version}"] += sample.value
        elif family.name in _COUNTERS:
            name, label = _COUNTERS[family.name]
            for sample in family.samples:
                key = f"{name} {sample.labels[label]}" if label else name
                counts[sample.labels.get("endpoint") or GATEWAY][key] += sample.value
        elif family.name in _GAUGES:
            for sample in family.samples:
                peaks[sample.labels.get("endpoint") or GATEWAY][_GAUGES[family.name]] = sample.value
    return Reading(
        round(started * SECOND),
        {
            subject: kept
            for subject, keys in counts.items()
            if (kept := {key: count for key, count in keys.items() if count})
        },
        dict(peaks),
    )


def sampled(before: State | None, readings: Mapping[int, Reading], now: int) -> tuple[list[Sample], State]:
    """Return the growth of all counters since the last look, one sample a subject, and the new state.

    A process that is seen for the first time counts from its start. Of a process that ended, the counts after its last
    reading are lost. A process that did not answer this time is compared with its last reading at the next. If the
    clock went back, the interval is taken to be as long as usual.
    """
    state = before or State(0)
    grown: Counts = defaultdict(lambda: defaultdict(float))
    peaks: Counts = defaultdict(dict)
    starts = []
    for slot, reading in readings.items():
        last = state.readings.get(slot)
        same = last is not None and last.started == reading.started
        starts.append(state.at if same else reading.started)
        for subject, keys in reading.counts.items():
            earlier = last.counts.get(subject, {}) if last is not None and same else {}
            for key, count in keys.items():
                more = count - earlier.get(key, 0.0)
                grown[subject][key] += more if more >= 0 else count  # a counter that began again
        for subject, keys in reading.peaks.items():
            for key, value in keys.items():
                peaks[subject][key] = peaks[subject].get(key, 0.0) + value
    start = min(starts, default=state.at)
    if not 0 < start < now:
        start = now - EVERY_US
    samples = [
        Sample(
            subject=subject,
            start=start,
            end=now,
            observed_us=now - start,
            counts={key: count for key, count in grown[subject].items() if count},
            peaks=peaks.get(subject, {}),
        )
        for subject in sorted({*grown, *peaks})
    ]
    return samples, State(now, {**state.readings, **readings})


_COUNTERS = {  # family -> first part of the key, label of the second
    "mainspring_requests": (REQUESTS, "status"),
    "mainspring_rejections": (REJECTIONS, "cause"),
    "mainspring_predictions": ("rows", ""),
    "mainspring_stored_features": ("features", "status"),
    FAILURES: ("failed", "version"),
    "process_cpu_seconds": ("cpu_s", ""),
}
_GAUGES = {
    "mainspring_waiting_rows": "waiting_rows",
    "process_resident_memory_bytes": "resident_bytes",
    "mainspring_connections": "connections",
}
