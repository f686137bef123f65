"""Creation of a project: features, example data, a model and an endpoint that work unchanged."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from mainspring.core.errors import Conflict, Invalid
from mainspring.core.settings import PROJECT_FILE
from mainspring.core.time import SystemClock, to_datetime

_TOML = """\
name = "{name}"
modules = ["{package}.features", "{package}.model", "{package}.service"]

# A profile says where data, models and processes live; the definitions are the same in every profile.
[profiles.local]
"""

_FEATURES = '''\
"""Entities, sources and features: the facts about an order that are known when it is placed."""

import mainspring as ms

order = ms.Entity("order", keys={"order": ms.String})
customer = ms.Entity("customer", keys={"customer": ms.String})

orders = ms.Source(
    "orders",
    schema={"order": ms.String, "customer": ms.String, "amount": ms.Float32},
    event_time="ordered_at",
    checks=[
        ms.checks.not_null("order", "customer"),
        ms.checks.unique("order"),
        ms.checks.in_range("amount", 0, 10_000),
    ],
)

outcomes = ms.Source(
    "outcomes",
    schema={"order": ms.String, "customer": ms.String, "returned": ms.Boolean},
    event_time="closed_at",
    checks=[ms.checks.not_null("order", "customer", "returned"), ms.checks.unique("order")],
)


@ms.feature_view(entity=customer, source=outcomes)
class ReturnRecord:
    """Outcomes of a customer's recent orders."""

    outcomes_30d = ms.count(window="30d")
    return_share_30d = ms.mean("returned", window="30d")
    last_returned = ms.last("returned", ttl="60d")


@ms.request_features
class Request:
    """Features of the order itself, computed from the fields of the request."""

    amount = ms.col("amount")


# The instants to predict at: one per order, when it is placed.
placed = ms.Observations(orders, keys=[order, customer], at=ms.col("ordered_at"))
'''

_DATA = '''\
"""Example data: ninety days of invented orders, and their outcomes two days later. Replace it with your own.

`mainspring ingest` takes a function like these, or a Parquet, CSV or JSON Lines file.
"""

import random
from datetime import UTC, datetime, timedelta

END = datetime({today:%Y}, {today.month}, {today.day}, tzinfo=UTC)  # the day on which the project was made
ORDERS = 3_000
# Each customer's probability of returning an order.
CUSTOMERS = {{"ana": 0.05, "bo": 0.6, "cem": 0.1, "dia": 0.5, "eli": 0.15, "fay": 0.4, "gus": 0.05, "hana": 0.3}}


def orders():
    """Return the orders, oldest first. The last one has a negative amount: it goes to the quarantine."""
    wrong = {{"order": "o9999", "customer": "bo", "amount": -1.0, "ordered_at": END - timedelta(minutes=1)}}
    return [*(order for order, _ in _history()), wrong]


def outcomes():
    """Return the outcomes that are known by now."""
    return [outcome for _, outcome in _history() if outcome["closed_at"] < END]


def _history():
    rng = random.Random(7)
    for number in range(ORDERS):
        ordered_at = END - timedelta(days=90) * (1 - number / ORDERS)
        order, customer = f"o{{number:04d}}", rng.choice(list(CUSTOMERS))
        amount = round(rng.uniform(5, 200), 2)
        returned = rng.random() < CUSTOMERS[customer] * (0.5 + amount / 200)
        yield (
            {{"order": order, "customer": customer, "amount": amount, "ordered_at": ordered_at}},
            {{"order": order, "customer": customer, "returned": returned, "closed_at": ordered_at + timedelta(days=2)}},
        )
'''

_MODEL = '''\
"""The model: will an order be returned?"""

import mainspring as ms
from {package}.features import Request, ReturnRecord, outcomes, placed


@ms.model(
    "order-return",
    observations=placed,
    features=[ReturnRecord, Request],
    baseline=[Request],
    label=outcomes.returned,
    task="binary",
    gates=[ms.gates.beats("auc", by=0.01)],
    holdout=0.2,
)
def train(data: ms.TrainingSet, run: ms.Run):
    """Fit gradient-boosted trees to the training rows."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # imported here: only training needs it

    trees = HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=8, random_state=run.seed)
    return trees.fit(data.train.X, data.train.y)
'''

_SERVICE = '''\
"""Endpoints: the names under which models are served."""

import mainspring as ms

ms.Endpoint("order-return", model="order-return@champion", deadline="250ms")
'''


def create(root: Path) -> Path:
    """Write a project into the new folder `root` and return it.

    Raises:
        Conflict: The folder exists and is not empty.
        Invalid: Its name is not valid for a project.
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
    (root / ".gitignore").write_text(".mainspring/\n__pycache__/\n*.key\n")
    (root / package / "__init__.py").write_text(f'"""The project {name}."""\n')
    (root / package / "features.py").write_text(_FEATURES)
    (root / package / "data.py").write_text(_DATA.format(today=to_datetime(SystemClock().now())))
    (root / package / "model.py").write_text(_MODEL.format(package=package))
    (root / package / "service.py").write_text(_SERVICE)
    return root


def next_commands(root: Path) -> list[str]:
    """Return the commands that lead a new project from its definitions to a prediction."""
    package = root.name.replace("-", "_")
    return [
        "mainspring apply",
        f"mainspring ingest orders {package}.data:orders",
        f"mainspring ingest outcomes {package}.data:outcomes",
        "mainspring train order-return",
        "mainspring promote order-return",
        "mainspring up  # keep it running; the next command in a second terminal",
        "mainspring predict order-return order=new customer=bo amount=150",
    ]


def _taken(package: str) -> str:
    """Return the existing module of this name, which a package of the project would shadow or be shadowed by; else
    empty.
    """
    if keyword.iskeyword(package):
        return "a word of Python"
    if package in sys.stdlib_module_names:
        return "a module of Python"
    return "an installed package" if package == "mainspring" or package in packages_distributions() else ""
