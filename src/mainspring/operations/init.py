"""A new project: small definitions that work as they are."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from mainspring.core.errors import Conflict, Invalid
from mainspring.project.settings import PROJECT_FILE

_TOML = """\
name = "{name}"
modules = ["{package}.features"]

# Where things live is the profile's matter; the definitions never change with it.
[profiles.local]
"""

_FEATURES = '''\
"""Entities, sources and features."""

import mainspring as ms

customer = ms.Entity("customer", keys={"customer": ms.String})

orders = ms.Source(
    "orders",
    schema={"customer": ms.String, "amount": ms.Float32},
    event_time="ordered_at",
    checks=[ms.checks.not_null("customer", "amount"), ms.checks.in_range("amount", 0)],
)


@ms.feature_view(entity=customer, source=orders)
class Spending:
    """What a customer has been spending."""

    orders_7d = ms.count(window="7d")
    mean_amount_7d = ms.mean("amount", window="7d")
    last_amount = ms.last("amount", ttl="30d")


def example_orders():
    """A few rows to try: `mainspring ingest orders {package}.features:example_orders`."""
    return [
        {"customer": "ana", "amount": 12.5, "ordered_at": "2026-01-05T09:30:00Z"},
        {"customer": "ana", "amount": 7.0, "ordered_at": "2026-01-06T18:00:00Z"},
        {"customer": "bo", "amount": -1.0, "ordered_at": "2026-01-06T19:00:00Z"},
    ]
'''


def create(root: Path) -> Path:
    """Write a project into the new folder `root` and return it.

    Raises:
        Conflict: The folder exists and is not empty.
        Invalid: Its name cannot be a project's.
    """
    name = root.name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name):
        raise Invalid(f"{name!r} cannot name a project.", fix="use letters, digits, '-' and '_', a letter first.")
    package = name.replace("-", "_")
    if taken := _taken(package):
        raise Invalid(f"{name!r} cannot name a project: {package!r} is {taken}.", fix="choose another name.")
    if root.exists() and any(root.iterdir()):
        raise Conflict(f"{root} exists and is not empty.", fix="choose another name.")
    (root / package).mkdir(parents=True)
    (root / PROJECT_FILE).write_text(_TOML.format(name=name, package=package))
    (root / ".gitignore").write_text(".mainspring/\n__pycache__/\n")
    (root / package / "__init__.py").write_text(f'"""The project {name}."""\n')
    (root / package / "features.py").write_text(_FEATURES.replace("{package}", package))
    return root


def _taken(package: str) -> str:
    """Return what a name is already, so that a package of that name would be shadowed or would shadow; else nothing."""
    if keyword.iskeyword(package):
        return "a word of Python"
    if package in sys.stdlib_module_names:
        return "a module of Python"
    return "an installed package" if package == "mainspring" or package in packages_distributions() else ""
