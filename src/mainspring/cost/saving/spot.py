"""A training on machines that are taken back: its expected time in closed form, and the distribution by simulation.

With interruptions at a constant rate, a stretch of work and its checkpoint, repeated until it is whole, are expected to
take (e^(rate stretch) - 1) e^(rate restart) / rate (Daly, FGCS 22(3), 2006): restarts are interrupted, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, exp, expm1, inf

MOST_LIVES = 100_000  # of one run, after which it is taken never to end


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A training, seconds.

    Attributes:
        work_s: Without checkpoints and interruptions.
        every_s: Work between checkpoints.
        checkpoint_s: By which one delays the work.
        restart_s: From an interruption until work goes on: a new machine, and the checkpoint read.
    """

    work_s: float
    every_s: float
    checkpoint_s: float
    restart_s: float

    @property
    def stretches(self) -> list[float]:
        """Seconds of each stretch with its checkpoint; the last has none."""
        count = max(1, ceil(self.work_s / self.every_s - 1e-9))
        last = self.work_s - (count - 1) * self.every_s
        return [self.every_s + self.checkpoint_s] * (count - 1) + [last]


def expected_s(training: Training, an_hour: float) -> float:
    """Return the expected time on one machine that is lost at a constant rate, restarts after losses among it."""
    if not an_hour:
        return sum(training.stretches)
    rate = an_hour / 3600
    return sum(expm1(rate * each) for each in training.stretches) * exp(rate * training.restart_s) / rate


def simulated_s(training: Training, life_s: Callable[[float], float], chance: Callable[[], float]) -> tuple[float, int]:
    """Return the time of one run, and how often it was interrupted.

    Args:
        life_s: Seconds that a machine lives, by a number of a uniform distribution over `[0, 1)`.
        chance: Draws such a number.
    """
    stretches, done, passed = training.stretches, 0, 0.0
    starting = 0.0  # of a first machine: the training begins when it is there
    for lost in range(MOST_LIVES):
        left = life_s(chance())
        if left < starting:
            passed += left
            starting = training.restart_s
            continue
        passed += starting
        left -= starting
        while done < len(stretches) and stretches[done] <= left:
            left -= stretches[done]
            passed += stretches[done]
            done += 1
        if done == len(stretches):
            return passed, lost
        passed += left
        starting = training.restart_s
    return inf, MOST_LIVES
