"""An endpoint as it is on this machine: its model, and the gateway beside the model, measured anew."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from mainspring.core.cores import usable_cores
from mainspring.core.time import SECOND
from mainspring.operations.bench.gateway import processor_s
from mainspring.operations.bench.load import LoadedGateway, loaded_gateway
from mainspring.operations.predict import route_of
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.serving.load.generator import Load
from mainspring.serving.model import Route
from mainspring.serving.plane.course import INLINE_US
from mainspring.serving.simulation.arrivals import Instants
from mainspring.serving.simulation.measuring import measure
from mainspring.serving.simulation.model import Endpoint
from mainspring.serving.simulation.times import Times
from mainspring.serving.simulation.waking import Waking, Woken, after_idle, during_work
from mainspring.serving.simulation_report import Part

_LEAST_RATE, _MOST_RATE = 10.0, 2_000.0
_SHARE = 0.5  # of what one executor can do: a probe leaves the process idle between requests
_PROBES = 3
_CROWD = 32  # connections that keep the process at work, as far as their requests meet the deadline
_LEAST_US = 1.0
_MOST_ROWS = 64
_SLOWER = 1.25  # at most: what is more is other work's
_FEW, _LONGEST_S = 5, 10.0  # a probe of a slow model takes longer, to have so many requests
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """An endpoint as it is here; attributes as of the simulation's `Endpoint`.

    Attributes:
        busy_share: Processor time that the gateway and its executors had when callers left it no pause, as a share of
            the time: of one core the rest is other work's.
    """

    route: Route
    version: str
    times: Times
    model_share: float
    load_s: float
    load_processor_s: float
    inline: bool
    overhead_us: float
    batch_us: float
    apart_us: float
    waking: Waking | None
    idle_share: float
    busy_share: float
    cores: int

    def endpoint(self, executors: tuple[int, int], cores: float, speed: float = 1.0) -> Endpoint:
        """Return an endpoint of the simulation.

        Args:
            cores: Of the gateway's process. With several, a slow model leaves the loop to others, in a thread.
            speed: Work of a core, as a multiple of one here.
        """
        return Endpoint(
            times=self.times if speed == 1.0 else self.times.faster(speed),
            overhead_us=self.overhead_us / speed,
            batch_us=self.batch_us / speed,
            waking=self.waking,
            apart_us=self.apart_us,
            deadline_us=self.route.deadline_us,
            executors=executors,
            idle_s=self.route.idle_us / SECOND,
            load_s=self.load_s,
            load_processor_s=self.load_processor_s,
            cores=cores,
            model_share=self.model_share,
            idle_share=self.idle_share / speed,
            inline=self.inline and executors == (1, 1) and (cores <= 1 or self.times.mean(1) <= INLINE_US),
            max_queue_rows=self.route.max_queue_rows,
        )

    @property
    def parts(self) -> list[Part]:
        """Its numbers, for people."""
        model, gateway = "calls of its executor", "processor time of a busy gateway"
        return [
            Part(name="model, a row alone", value=self.times.mean(1), unit="us", how=model),
            Part(name="model, 64 rows", value=self.times.mean(64), unit="us", how=model),
            Part(name="processor time of a call", value=self.model_share, unit="share of its time", how=model),
            Part(name="loading the model", value=self.load_s, unit="s", how="once"),
            Part(name="processor time of that", value=self.load_processor_s, unit="s", how="once"),
            Part(name="gateway, a request", value=self.overhead_us, unit="us", how=gateway),
            Part(name="gateway, a batch", value=self.batch_us, unit="us", how=gateway),
            Part(name="outside the gateway", value=self.apart_us, unit="us", how="one caller in a closed loop"),
            *(
                Part(
                    name=f"more after {gap_us / 1000:.3g} ms of idleness", value=more_us, unit="us",
                    how="median of requests that came by chance",
                )
                for gap_us, more_us in (self.waking.medians if self.waking else ())
            ),
            Part(
                name="idle gateway", value=1000 * self.idle_share, unit="ms of processor time a second",
                how="without requests",
            ),
        ]  # fmt: skip


def measured(
    project: Project, endpoint: str, arrivals: Instants, replicas: int = 1, seconds: float = 8.0,
    told: Told = lambda _: None,
) -> Measured:  # fmt: skip
    """Measure an endpoint's model, then a private gateway at rates around those of a load.

    Args:
        replicas: Among how many the load is divided at most.
        seconds: For all of it, beside starting the gateway.

    Raises:
        NotFound: There is no such endpoint, or it serves nothing yet.
        Unavailable: The gateway does not start.
    """
    route = route_of(project, endpoint)
    arm = max(route.arms, key=lambda each: each.weight)
    bundle = project.bundles.load(arm.digest)
    told("measuring the model")
    with _cores_of_a_gateway() as cores:
        begun, before = time.perf_counter(), processor_s(os.getpid())[1]
        executor = executors(project)(bundle)
        try:
            load_s, inline = time.perf_counter() - begun, executor.inline
            load_processor_s = processor_s(os.getpid())[1] - before
            times, share = measure(
                executor, bundle, most_rows=_MOST_ROWS, seconds=seconds / 4, spent_s=lambda: processor_s(os.getpid())[1]
            )
        finally:
            executor.close()
    told("measuring the gateway")
    with loaded_gateway(project, endpoint) as gateway:
        gateway.warm_up()
        probe = _Probe(gateway, times, share if inline else 0.0, seconds=0.75 * seconds)
        idle = probe.idle()
        chosen = rates(arrivals, replicas, times.mean(1))
        tried = [probe.tried(rate, len(chosen)) for rate in chosen]
        alone = probe.alone()
        if not alone.answered:
            raise gateway.refused(dict(alone.statuses))
        request_us, batch_us, busy_share, slower = probe.busy()
    times = times.faster(1 / slower)
    apart_us = max(0.0, float(np.median(alone.latencies_us)) - request_us - batch_us - times.draw(1, 0.5))
    beside_us = request_us + batch_us + apart_us
    another_us = request_us + max(0.0, times.mean(_MOST_ROWS) - times.mean(1)) / (_MOST_ROWS - 1)
    woken = [Woken(*after_idle(alone.due_us, alone.latencies_us), 0.0, alone.asked)]
    woken += [
        Woken(
            *after_idle(load.due_us, load.latencies_us, another_us),
            each_us - times.mean(1) * share - request_us - batch_us,
            load.asked,
            during_work(load.due_us, load.latencies_us),
        )
        for load, each_us in tried
    ]
    found = any(len(each.gaps_us) for each in woken)  # a model of seconds may leave none
    waking = Waking(woken, lambda chance: times.draw(1, chance) + beside_us, apart_us) if found else None
    return Measured(
        route=route,
        version=arm.version,
        times=times,
        model_share=share,
        load_s=load_s,
        load_processor_s=load_processor_s,
        inline=inline,
        overhead_us=request_us,
        batch_us=batch_us,
        apart_us=apart_us,
        waking=waking,
        idle_share=idle,
        busy_share=busy_share,
        cores=cores,
    )


def rates(arrivals: Instants, replicas: int, takes_us: float) -> list[float]:
    """Return the rates at which a gateway is measured: those of the load, as far as one executor is idle at times.

    Args:
        replicas: Among how many the load is divided at most.
        takes_us: Time of a request.
    """
    counts = np.bincount(arrivals // SECOND)
    low, high = (float(each) for each in np.quantile(counts, [0.1, 0.9]))
    most = min(_MOST_RATE, _SHARE * SECOND / takes_us)
    low = min(max(low / replicas / 2, _LEAST_RATE), most)
    high = min(max(high, low), most)
    count = 1 if high < 1.5 * low else 2 if high < 3 * low else _PROBES
    return [float(each) for each in np.geomspace(low, high, count)]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Requests to a process without a pause.

    Attributes:
        rows: Mean of its batches.
        slower: How many times as long the model took as by itself.
        beside_us: Processor time of a request beside the model.
        share: Of the time in which the process computed.
    """

    load: Load
    rows: float
    slower: float
    beside_us: float
    share: float


class _Probe:
    """Loads of a private gateway.

    Args:
        model_share: Processor time of the model within the gateway, as a share of its time.
        seconds: For all of them.
    """

    def __init__(self, gateway: LoadedGateway, times: Times, model_share: float, seconds: float) -> None:
        self._gateway, self._times, self._model_share = gateway, times, model_share
        self._each_s = seconds / (_PROBES + 3)
        self._idle = 0.0
        self._alone: _Asked

    def idle(self) -> float:
        """Return the processor time of a second without requests."""
        before, begun = processor_s(self._gateway.pid)[1], time.perf_counter()
        time.sleep(self._each_s)
        self._idle = max(0.0, processor_s(self._gateway.pid)[1] - before) / (time.perf_counter() - begun)
        return self._idle

    def tried(self, rate: float, count: int) -> tuple[Load, float]:
        """Return what came of a rate, one of `count`, and the processor time of a request, µs."""
        before = self._gateway.numbers()
        seconds = max(_PROBES * self._each_s / count, min(_FEW / rate, _LONGEST_S))
        load, _, spent_us = self._loaded(seconds, rate=rate)
        return load, spent_us / max(1, self._gateway.numbers().since(before).asked)  # those of the warm-up, too

    def alone(self) -> Load:
        """Return what one caller gets that asks again when it is answered."""
        self._alone = self._asked_again(1)
        return self._alone.load

    def busy(self) -> tuple[float, float, float, float]:
        """Return the process's own time of a request and of a batch, µs, the share of the time that it computes, and
        how many times as long the model takes within it as by itself: requests and answers have its caches meanwhile.
        """
        fit = self._gateway.route.deadline_us / 2 / self._times.mean(1)  # of functions that take a row's time each
        found = self._asked_again(int(min(max(fit, 2), _CROWD)))
        rows, one = found.rows, max(self._alone.beside_us, _LEAST_US)
        many = max(min(one, found.beside_us), _LEAST_US)
        batch_us = min((one - many) / (1 - 1 / rows), one - _LEAST_US) if rows > 1.1 else 0.0
        return float(one - batch_us), float(batch_us), found.share, found.slower

    def _asked_again(self, connections: int) -> _Asked:
        """Return what callers get that ask again when they are answered."""
        before = self._gateway.numbers()
        load, spent_us, whole_us = self._loaded(connections=connections)
        counted = self._gateway.numbers().since(before)
        rows = max(1.0, counted.batch_rows.mean or 1.0)
        batch_us, slower = self._times.mean(max(1, round(rows))), 1.0
        compute = counted.stages.get("compute")
        if self._model_share and compute is not None and compute.mean:
            slower = min(max(1.0, compute.mean * SECOND / batch_us), _SLOWER)
        beside_us = spent_us / max(1, load.asked) - slower * batch_us * self._model_share / rows
        return _Asked(load, rows, float(slower), beside_us, whole_us / (load.seconds * SECOND))

    def _loaded(
        self, seconds: float = 0.0, *, rate: float | None = None, connections: int | None = None
    ) -> tuple[Load, float, float]:
        """Return what came of a load, and the processor time of the gateway, and with its executors, µs."""
        own, both = processor_s(self._gateway.pid)
        begun = time.perf_counter()
        load = self._gateway.loaded(max(self._each_s, seconds), rate=rate, connections=connections)
        after = processor_s(self._gateway.pid)
        idle = self._idle * (time.perf_counter() - begun)
        return load, max(0.0, after[0] - own - idle) * SECOND, max(0.0, after[1] - both - idle) * SECOND


@contextmanager
def _cores_of_a_gateway() -> Iterator[int]:
    """Run the block on the cores that `gateway_apart` gives a gateway; yield how many they are."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        yield usable_cores()
        return
    os.sched_setaffinity(0, cores[:-1])
    try:
        yield usable_cores()
    finally:
        os.sched_setaffinity(0, cores)
