"""Targets of a project's file: `[targets.NAME]`."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.core.settings import TargetSetting
from mainspring.project.setting_values import nbytes

_FIX = 'write [targets.NAME], then kind = "systemd" and what differs from the defaults.'
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_MOST_REPLICAS, _MOST_CPU, _MOST_GPUS = 1000, 512, 64


def read_targets(given: Any, profile: str, profiles: Collection[str]) -> dict[str, TargetSetting]:
    """Return the targets by name. Options of a kind are checked by the kind.

    Args:
        given: The file's table `targets`.
        profile: Profile of targets that name none.
        profiles: Names of all profiles.

    Raises:
        Invalid: A setting has an invalid value.
    """
    if not isinstance(given, dict) or not all(isinstance(each, dict) for each in given.values()):
        raise Invalid("targets is not a table of tables.", fix=_FIX)
    return {name: _target(check_id(name, "target"), values, profile, profiles) for name, values in given.items()}


def _target(name: str, values: Mapping[str, Any], profile: str, profiles: Collection[str]) -> TargetSetting:
    kind, used = values.get("kind"), values.get("profile", profile)
    if not isinstance(kind, str) or not kind:
        raise Invalid(f"Target {name!r} has no kind.", fix=_FIX)
    if used not in profiles:
        raise Invalid(f"Target {name!r} has the profile {used!r}.", fix=f"name one of {sorted(profiles)}.")
    read: dict[str, Callable[[str, Any], Any]] = {
        "endpoints": _texts,
        "image": _text,
        "replicas": _replicas,
        "cpu": _cpu,
        "memory": _memory,
        "gpus": _gpus,
        "port": _port,
        "env": _env,
        "secrets": _secrets,
        "region": _text,
        "worker": _flag,
    }
    found = {each: check(f"{each} of target {name!r}", values[each]) for each, check in read.items() if each in values}
    options = {each: value for each, value in values.items() if each not in (*read, "kind", "profile")}
    return TargetSetting(name=name, kind=kind, profile=used, options=options, **found)


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise Invalid(f"The {what} is {value!r}.", fix="write a text.")
    return value


def _texts(what: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise Invalid(f"The {what} are {value!r}.", fix='write a list of names: ["late-delivery"].')
    return tuple(dict.fromkeys(value))


def _secrets(what: str, value: Any) -> tuple[str, ...]:
    names = _texts(what, value)
    for each in names:
        if not _VARIABLE.fullmatch(each):
            raise Invalid(f"The {what} name {each!r}.", fix="name variables, such as MAINSPRING_CATALOG; no values.")
    return names


def _replicas(what: str, value: Any) -> tuple[int, int]:
    pair = [value, value] if _whole(value) else value
    if not isinstance(pair, list) or len(pair) != 2 or not all(map(_whole, pair)):
        raise Invalid(f"The {what} are {value!r}.", fix="write the least and the most: [1, 4].")
    if not 0 <= pair[0] <= pair[1] <= _MOST_REPLICAS or not pair[1]:
        raise Invalid(
            f"The {what} are {value!r}.", fix=f"the least is at most the most, which is from 1 to {_MOST_REPLICAS:,}."
        )
    return pair[0], pair[1]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _cpu(what: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= _MOST_CPU:
        raise Invalid(f"The {what} is {value!r}.", fix=f"write a number of cores above 0, up to {_MOST_CPU}.")
    return float(value)


def _memory(what: str, value: Any) -> int:
    return nbytes({what: value}, what) or 0


def _gpus(what: str, value: Any) -> int:
    if not _whole(value) or not 0 <= value <= _MOST_GPUS:
        raise Invalid(f"The {what} are {value!r}.", fix=f"write a whole number from 0 to {_MOST_GPUS}.")
    return int(value)


def _port(what: str, value: Any) -> int:
    if not _whole(value) or not 1024 <= value <= 65535:
        raise Invalid(f"The {what} is {value!r}.", fix="write a port from 1024: below, only root may listen.")
    return int(value)


def _env(what: str, value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise Invalid(f"The {what} is {value!r}.", fix='write env = { MAINSPRING_MODEL_TIME = "5s" }, values as texts.')
    return value


def _flag(what: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise Invalid(f"The {what} is {value!r}.", fix="write true or false.")
    return value
