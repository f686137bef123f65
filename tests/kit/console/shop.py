"""A shop whose data is as messy as data is: two keys, corrections, late rows, a column that identifies a person."""

import random
from typing import Any

import pyarrow as pa

import mainspring as ms
from kit.console.flights import Project, declared
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import DAY, HOUR, MINUTE, ManualClock, format_instant, parse_instant
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.commits import commit
from mainspring.data.ingest import Ingestor
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.materialise import Materialiser
from mainspring.project.definitions.model import Definitions
from mainspring.training.model import Model

NOW = parse_instant("2024-03-20T10:30:00Z")
START = NOW - 60 * DAY
STATUSES = ("new", "paid", "sent", "back", "lost", "held", "split")
BUYERS = tuple((country, number) for country in ("AT", "DE", "FR") for number in (1, 2, 11, 111))
KEYINGS = {"buyer": ("country", "number")}

buyer = ms.Entity("buyer", keys={"country": ms.String, "number": ms.Int64}, description="Whoever pays")
orders = ms.Source(
    "orders",
    schema={
        "country": ms.String,
        "number": ms.Int64,
        "amount": ms.Float64,
        "status": ms.String,
        "email": ms.String,
        "paid": ms.Boolean,
    },
    event_time="ordered_at",
    recorded_time="seen_at",
    lag="5m",
    checks=[ms.not_null("amount"), ms.in_range("amount", -1000, 1000), ms.one_of("status", list(STATUSES))],
    description="Orders as they come in",
    owner="till",
    pii=["email"],
)
returns = ms.Source("returns", schema={"country": ms.String, "number": ms.Int64}, event_time="at")


@ms.feature_view(entity=buyer, source=orders, owner="growth", tags={"tier": "gold"})
class Orders:
    """What a buyer ordered lately."""

    orders_24h = ms.count(window="24h")
    paid_24h = ms.count(window="24h", where=ms.col("paid"))
    spent_7d = ms.sum("amount", window="7d", default=0, description="In euros")
    largest_7d = ms.max("amount", window="7d")
    status = ms.last("status", ttl="3d")
    paid = ms.last("paid")
    email = ms.last("email")
    seen = ms.last(ms.col("seen_at"))
    paid_share = paid_24h / orders_24h


@ms.feature_view(entity=buyer, source=returns)
class Returns:
    """What a buyer sent back."""

    returns_7d = ms.count(window="7d")


@ms.request_features
class Basket:
    """The basket, beside what was bought before."""

    share = ms.col("value") / Orders.spent_7d


schedule = ms.Source(
    "checkouts",
    schema={"country": ms.String, "number": ms.Int64, "value": ms.Float64, "fraud": ms.Boolean},
    event_time="at",
)
checkouts = ms.Observations(schedule, keys=[buyer], at=ms.col("at"))


def train(data: Any, run: Any) -> None:
    """Whether a checkout is a fraud."""


fraud = Model(
    "fraud",
    train=train,
    observations=checkouts,
    features=(Orders, Basket),
    label=schedule.fraud,
    task="binary",
)


def rows(count: int = 600, seed: int = 5) -> list[dict[str, Any]]:
    """Orders in the order they arrive: some late, some correcting an earlier one, some wrong."""
    rng = random.Random(seed)
    made = []
    for index in range(count):
        country, number = BUYERS[rng.randrange(len(BUYERS) - 1)]  # the last buyer never orders
        at = START + (NOW - START) * index // count + rng.randrange(HOUR)
        late = rng.choice((0, MINUTE, 40 * MINUTE, 5 * HOUR, 3 * DAY))
        made.append(
            {
                "country": country,
                "number": number,
                "amount": None if rng.random() < 0.02 else round(rng.gauss(40, 25), 2),
                "status": rng.choices(STATUSES, (30, 25, 20, 10, 5, 5, 5))[0] if rng.random() < 0.95 else None,
                "email": f"{country}{number}@example.org",
                "paid": rng.random() < 0.7,
                "ordered_at": format_instant(at),
                "seen_at": format_instant(at + late),
            }
        )
    return made


def landed(data: list[dict[str, Any]] | None = None, lake: Any = None) -> Any:
    """Return a lake with the orders."""
    lake = lake or MemoryLake()
    ingestor = Ingestor(lake, MemoryLocks(), ManualClock(NOW + DAY))
    ingestor.ingest(orders, rows() if data is None else data, keyings=KEYINGS)
    return lake


def definitions(*views: Any) -> Definitions:
    shown = views or (Orders, Returns)
    return declared(
        sources={source.name: source for source in (orders, returns, schedule)},
        views={view.name: view for view in shown},
        request_features={"Basket": Basket},
        models={"fraud": fraud},
        endpoints={"checkout": ms.Endpoint("checkout", model="fraud@champion")},
    )


def shop(**more: Any) -> Project:
    """Return a project with orders landed, committed twice and materialised ten minutes ago."""
    clock = ManualClock(NOW)
    everything = rows()
    lake = landed(everything[:300])
    project = Project(
        clock=clock, wall=clock, definitions=definitions(), **{"lake": lake, "online": MemoryOnlineStore(), **more}
    )
    first = commit(lake, project.snapshots, clock, "half of it")
    project.snapshots.tag("half", first.id)
    ingestor = Ingestor(lake, MemoryLocks(), clock)
    ingestor.ingest(orders, everything[300:], keyings=KEYINGS)
    clock.advance(MINUTE)
    commit(lake, project.snapshots, clock, "all of it")
    clock.set(NOW - 10 * MINUTE)
    Materialiser(lake, project.online, clock).run(Orders)
    clock.set(NOW)
    return project


def whole(project: Project, lake: Any) -> Project:
    return project.having(lake=lake)


def asked(instants: list[int], keys: list[tuple[str, int]]) -> pa.Table:
    """Return one observation for each key and instant."""
    pairs = [(country, number, at) for country, number in keys for at in instants]
    return pa.table(
        {
            "country": pa.array([pair[0] for pair in pairs], pa.string()),
            "number": pa.array([pair[1] for pair in pairs], pa.int64()),
            "_at": pa.array([pair[2] for pair in pairs], pa.timestamp("us", tz="UTC")),
        }
    )
