"""A project in which much was tried: runs with lines, parts of runs, failures, and names as people invent them."""

import math
import random

from kit.console.flights import NOW, Project, populated
from mainspring.core.time import HOUR, MINUTE, SECOND
from mainspring.registry.runs import NAME, PARENT

OPTIMIZERS = ("adam", "adamw", "sgd")


def tried(project: Project | None = None) -> Project:
    """Return the project with 60 runs, the newest with nested ones."""
    project = project or populated()
    draw, tracking = random.Random(11), project.tracking
    for number in range(56):
        _trial(project, draw, number, NOW - (56 - number) * 3 * HOUR, {NAME: f"trial-{number:02d}"})
    sweep = tracking.start("late", {NAME: "the sweep"}, NOW - 2 * HOUR)
    for number in range(3):
        _trial(project, draw, 60 + number, NOW - HOUR + number * MINUTE, {NAME: f"fold-{number}", PARENT: sweep})
    for step in range(90):
        at = NOW - 2 * HOUR + step * 20 * SECOND
        tracking.log(sweep, metrics=[("system/cpu_percent", 50 + 40 * math.sin(step / 9), 0, at)])
    tracking.log_artefact(sweep, "environment.json", b"{}" * 900)
    tracking.log_artefact(sweep, "plots/roc.png", b"x" * 48_000)
    broken = tracking.start("late", {NAME: "<b>broken</b>"}, NOW - 3 * MINUTE)
    tracking.log(broken, params={"optimizer": "<script>alert(1)</script>"}, metrics=[("loss", math.nan, 0, NOW)])
    tracking.finish(broken, "FAILED", NOW - MINUTE)
    return project


def _trial(project: Project, draw: random.Random, number: int, at: int, tags: dict[str, str]) -> str:
    tracking = project.tracking
    run_id = tracking.start("late", {**tags, "seed": "7", "code_version": f"{number % 3:040x}"}, at)
    rate, depth = 10 ** draw.uniform(-4, -1), draw.randrange(2, 12)
    params = {"lr": f"{rate:.6f}", "depth": str(depth), "optimizer": draw.choice(OPTIMIZERS), "batch_size": "256"}
    tracking.log(run_id, params=params)
    good = 0.7 + 0.1 * math.exp(-((math.log10(rate) + 2.3) ** 2)) + depth / 200
    steps = 40 if number % 4 else 800
    lines = []
    for step in range(steps):
        falling = 0.3 + (1 - good) + 0.5 * math.exp(-6 * step / steps)
        when = at + step * SECOND
        lines += [("train.loss", falling + draw.gauss(0, 0.02), step, when)]
        lines += [("valid.loss", falling * 1.1 + draw.gauss(0, 0.01), step, when)] if step % 4 == 0 else []
    held_out = [("holdout.auc", good, 0, at), ("holdout.brier", 0.2 - good / 8, 0, at)]
    tracking.log(run_id, metrics=lines + held_out)
    tracking.finish(run_id, "FAILED" if number % 13 == 5 else "FINISHED", at + steps * SECOND + draw.randrange(SECOND))
    return run_id


def empty() -> Project:
    """Return a project without a run."""
    return populated().having(tracking=type(populated().tracking)())
