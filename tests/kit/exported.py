"""A project with a pipeline that has everything: fan-out, conditions, a mapped step, names that other engines refuse.

Its steps write a line each into `ran.txt`, so that a test sees what an engine ran.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

PIPELINE = r'''
"""A pipeline of every kind of step."""

import time
from pathlib import Path

import mainspring as ms


TEXT = "it's {{item}} \"quoted\" \\ $x"


def note(*words):
    with open(Path(__file__).parent / "ran.txt", "a") as file:
        print(*words, file=file)


@ms.step
def load(days: int):
    note("load", days)
    return {"folds": list(range(days)), "none": [], "text": TEXT}


@ms.step(retries=1, timeout="10m", limit=2, name="fit-one")
def fit(fold: int, text: str, *, seed: int = 0):
    assert text == TEXT, text
    note("fit", fold, seed)
    return {"auc": fold + seed, "name": f"m{fold}"}


@ms.step(name="class")
def choose(fits: list):
    note("choose", len(fits))
    return max(fits, key=lambda each: each["auc"])


@ms.step(name="parameters")
def promote(best, names=None, project=None):
    note("promote", best["name"], names["days"], project.name)
    return [best["name"], names]


@ms.step
def retire(best):
    note("retire")


@ms.step
def last(nothing: list, retired=None):
    note("last", nothing)
    return nothing


@ms.step(retries=0)
def fail(data):
    note("fail")
    raise RuntimeError("on purpose")


@ms.step(retries=0, timeout="20s")
def hang(data):
    note("hang")
    time.sleep(600)


@ms.pipeline(every="1d", name="nightly")
def nightly(days: int = 3, seed: int = 1):
    """Train "and" promote."""
    data = load(days)
    best = choose(fit.map(data["folds"], data["text"], seed=seed, most=5))
    with ms.only_if(best["auc"] > 2):
        promote(best, names={"days": days, "fixed": [1, best["name"]]})
    with ms.only_if(best["auc"] > 100):
        retired = retire(best)
        fit.map(data["folds"], data["text"])
    last(fit.map(data["none"], data["text"]))
    return best["auc"]


@ms.pipeline(name="asked")
def asked(days: int = 1):
    data = load(days)
    with ms.approval("go-live"):
        retire(data)
    with ms.only_if(data["folds"][0] > 5), ms.approval("never"):
        retire(data)


@ms.pipeline(name="broken")
def broken(days: int = 2):
    data = load(days)
    bad = fail(data)
    fit.map(bad, data["text"])
    retire(hang(data))
    last(bad)
    return choose(fit.map(data["folds"], data["text"]))
'''
RAN = Counter(
    ["load 3", "fit 0 1", "fit 1 1", "fit 2 1", "choose 3", "promote m2 3 shop", "last []"]
)  # by a run of `nightly`, in whatever engine
BROKEN = Counter(["load 2", "fail", "hang", "fit 0 0", "fit 1 0", "choose 2"])  # by a run of `broken`


def lay_out(folder: Path) -> Project:
    """Write the project into a folder, and open it."""
    (folder / "shop").mkdir(parents=True)
    (folder / "shop" / "__init__.py").write_text("")
    (folder / "shop" / "pipelines.py").write_text(PIPELINE)
    (folder / "mainspring.toml").write_text('name = "shop"\nmodules = ["shop.pipelines"]\n[profiles.local]\n')
    return open_project(load_settings(folder, environment={}))


def ran(folder: Path) -> Counter[str]:
    """Return the lines that steps have written, and forget them."""
    path = folder / "shop" / "ran.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return Counter(lines)
