"""Counts of gateway processes between looks add up to what was counted, whatever happens to processes and clocks."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.core.time import MINUTE, SECOND, ManualClock
from mainspring.monitoring.service.burning import reports
from mainspring.monitoring.service.objectives import LATENCY_BOUNDS_US, availability, latency
from mainspring.monitoring.service.readings import Reading, State, read, sampled
from mainspring.monitoring.service.samples import merged
from mainspring.serving.plane.metrics import Metrics

NOW = 1_700_000_000 * SECOND


def process(started: int = NOW) -> Metrics:
    return Metrics(
        ready=lambda: True,
        served=lambda: {"flights": ("7",)},
        waiting=lambda: {"flights": 3},
        refused=dict,
        clock=ManualClock(started),
    )


def test_a_text_is_read_back_as_it_was_counted() -> None:
    chance, metrics = random.Random(1), process()
    endpoint = metrics.of("flights")
    durations = [chance.lognormvariate(-4, 2) for _ in range(500)]
    for duration in durations:
        endpoint.version(chance.choice(["6", "7"])).seconds.observe(duration)
    endpoint.requests.update({200: 500, 503: 4})
    endpoint.rejections["queue_full"] = 4
    endpoint.version("7").failed = 2
    metrics.outside[404] = 9
    reading = read(metrics.text().decode())
    counts = reading.counts["flights"]
    assert reading.started == NOW
    assert (counts["requests 200"], counts["requests 503"], counts["rejections queue_full"]) == (500, 4, 4)
    assert counts["failed 7"] == 2
    assert counts["answered 6"] + counts["answered 7"] == 500
    assert counts["took_s 6"] + counts["took_s 7"] == pytest.approx(sum(durations))
    assert reading.counts["process gateway"]["requests 404"] == 9
    assert reading.counts["process gateway"]["cpu_s"] > 0
    assert reading.peaks["flights"] == {"waiting_rows": 3.0}
    assert reading.peaks["process gateway"]["resident_bytes"] > 1e6
    [sample] = [each for each in sampled(None, {0: reading}, NOW + MINUTE)[0] if each.subject == "flights"]
    for within in LATENCY_BOUNDS_US:
        promised = latency(0.9, within=within)
        [report] = reports("flights", [promised], [sample], NOW + MINUTE)
        assert report.good == sum(duration * SECOND <= within for duration in durations)


def test_versions_that_are_gone_do_not_pile_up_in_a_scrape() -> None:
    metrics = process()
    for version in range(100):
        metrics.of("flights").version(str(version)).seconds.observe(0.01)
    text = metrics.text().decode()
    assert 'mainspring_inference_seconds_count{endpoint="flights",version="7"}' in text
    assert text.count("mainspring_inference_seconds_count{") == 16


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("count"), st.integers(0, 3), st.integers(1, 50)),
        st.tuples(st.just("restart"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("hang"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("look"), st.integers(0, 3), st.integers(1, 4000)),
        st.tuples(st.just("clock"), st.integers(0, 3), st.integers(-100_000, 100_000)),
    ),
    max_size=40,
)


@settings(max_examples=examples(gate=100, deep=1000), deadline=None)
@given(acts=ACTS)
def test_every_count_that_was_read_is_in_one_sample_once(acts: list[tuple[str, int, int]]) -> None:
    """Processes count, restart (which is read before they end), hang for a look; the clock jumps."""
    now = NOW
    counts, starts = [0.0] * 4, [NOW - 1000 * SECOND + slot for slot in range(4)]
    hanging: set[int] = set()
    state: State | None = None
    samples, counted, births = [], 0.0, 0

    def look() -> None:
        nonlocal state
        readings = {
            slot: Reading(starts[slot], {"flights": {"rows": counts[slot]}} if counts[slot] else {})
            for slot in range(4)
            if slot not in hanging
        }
        found, state = sampled(state, readings, now)
        samples.extend(found)
        hanging.clear()

    for act, slot, number in acts:
        if act == "count":
            counts[slot] += number
            counted += number
        elif act == "restart":
            hanging.clear()
            look()
            births += 1
            counts[slot], starts[slot] = 0.0, now + births
        elif act == "hang":
            hanging.add(slot)
        elif act == "look":
            now += number * SECOND
            look()
        else:
            now += number * SECOND
    hanging.clear()
    look()
    assert sum(sample.counts.get("rows", 0.0) for sample in samples) == counted
    assert all(sample.start < sample.end and sample.observed_us > 0 for sample in samples)
    if samples:
        assert merged(samples).counts.get("rows", 0.0) == counted


def test_what_is_not_stored_is_counted_at_the_next_look() -> None:
    """A worker that is killed before it stores a look repeats it; one that was away for hours loses nothing."""
    first = {0: Reading(NOW - MINUTE, {"flights": {"requests 200": 5.0}})}
    later = {0: Reading(NOW - MINUTE, {"flights": {"requests 200": 9.0}})}
    [begun], state = sampled(None, first, NOW)
    assert (begun.start, begun.end, begun.counts) == (NOW - MINUTE, NOW, {"requests 200": 5.0})
    lost, _ = sampled(state, later, NOW + MINUTE)
    [again], _ = sampled(state, later, NOW + 600 * MINUTE)
    assert lost[0].counts == again.counts == {"requests 200": 4.0}
    assert (again.start, again.end) == (NOW, NOW + 600 * MINUTE)


def test_a_restarted_process_counts_from_its_start_even_if_it_counted_more() -> None:
    _, state = sampled(None, {0: Reading(NOW - MINUTE, {"flights": {"requests 200": 5.0}})}, NOW)
    restarted = {0: Reading(NOW + 10 * SECOND, {"flights": {"requests 200": 50.0}})}
    [sample], _ = sampled(state, restarted, NOW + MINUTE)
    assert (sample.start, sample.counts) == (NOW + 10 * SECOND, {"requests 200": 50.0})


def test_an_idle_minute_is_observed() -> None:
    reading = {0: Reading(NOW - MINUTE, {"flights": {"requests 200": 5.0}})}
    _, state = sampled(None, reading, NOW)
    [idle], _ = sampled(state, reading, NOW + MINUTE)
    assert (idle.counts, idle.observed_us) == ({}, MINUTE)
    [report] = reports("flights", [availability(0.9)], [idle], NOW + MINUTE)
    assert report.ratio is None
    assert report.observed == pytest.approx(1 / (30 * 24 * 60))


def test_no_process_is_no_sample() -> None:
    samples, state = sampled(None, {}, NOW)
    assert samples == []
    assert sampled(state, {}, NOW + MINUTE) == ([], State(NOW + MINUTE))
