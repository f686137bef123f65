"""Report of the model pipeline: stages, each with checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

STAGES = ("commit", "tests", "training", "evaluation", "validation", "staging", "production")

_LONGEST = 2_000  # characters of a text

State = Literal["passed", "warned", "failed", "skipped"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check: what was looked at, and what was found. A warning does not stop the pipeline."""

    name: str
    state: State
    detail: str
    model: str = ""
    fix: str = ""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage with its checks, in order. Its state is the worst of the checks; skipped if all were."""

    name: str
    state: State
    checks: tuple[Check, ...]
    seconds: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of the pipeline. Stages after a failed one were not begun."""

    project: str
    commit: str
    models: tuple[str, ...]
    started_at: str  # RFC 3339
    stages: tuple[Stage, ...]
    passed: bool
    share: float  # of the observations that the subset was trained on


def readable(check: Check) -> Check:
    """Return a check with text that terminals, XML and databases take: printable, and of a bounded length.

    Tests and a project's code decide what an error says.
    """
    name, detail, fix = (_readable(text) for text in (check.name, check.detail, check.fix))
    return msgspec.structs.replace(check, name=name, detail=detail, fix=fix)


def _readable(text: str) -> str:
    shown = "".join(each if each in "\n\t" or each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}… ({len(shown):,} characters)"


def stage_of(name: str, checks: Sequence[Check], seconds: float) -> Stage:
    """Return a stage with its state."""
    states = {check.state for check in checks}
    worst: State = "failed" if "failed" in states else "warned" if "warned" in states else "passed"
    return Stage(name=name, state=worst if states != {"skipped"} else "skipped", checks=tuple(checks), seconds=seconds)


def passed(name: str, detail: str, *, model: str = "") -> Check:
    return Check(name=name, state="passed", detail=detail, model=model)


def warned(name: str, detail: str, fix: str = "", *, model: str = "") -> Check:
    return Check(name=name, state="warned", detail=detail, fix=fix, model=model)


def failed(name: str, detail: str, fix: str = "", *, model: str = "") -> Check:
    return Check(name=name, state="failed", detail=detail, fix=fix, model=model)


def skipped(name: str, detail: str, *, model: str = "") -> Check:
    return Check(name=name, state="skipped", detail=detail, model=model)
