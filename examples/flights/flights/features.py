"""Features of a flight, as they are known two hours before it leaves."""

import mainspring as ms

NEW_YORK = "America/New_York"

flight = ms.Entity("flight", keys={"flight": ms.String}, description="One scheduled departure")
origin = ms.Entity("origin", keys={"origin": ms.String}, description="One of New York's three airports")
carrier = ms.Entity("carrier", keys={"carrier": ms.String}, description="An airline")
destination = ms.Entity("destination", keys={"dest": ms.String}, description="The airport flown to")

schedule = ms.Source(
    "schedule",
    schema={
        "flight": ms.String,
        "origin": ms.String,
        "carrier": ms.String,
        "dest": ms.String,
        "distance": ms.Float32,
    },
    event_time="scheduled_departure",
    checks=[
        ms.checks.not_null("flight", "origin", "carrier", "dest"),
        ms.checks.unique("flight"),
        ms.checks.in_range("distance", 1, 6000),
    ],
    description="Every scheduled departure",
    owner="flights",
)

departures = ms.Source(
    "departures",
    schema={"flight": ms.String, "origin": ms.String, "carrier": ms.String, "dep_delay": ms.Float32},
    event_time="departed_at",
    checks=[
        ms.checks.not_null("flight", "dep_delay"),
        ms.checks.one_of("origin", ["EWR", "JFK", "LGA"]),
        ms.checks.unique("flight"),
    ],
    description="Flights that left; known as they leave",
    owner="flights",
)

arrivals = ms.Source(
    "arrivals",
    schema={
        "flight": ms.String,
        "origin": ms.String,
        "carrier": ms.String,
        "dest": ms.String,
        "arr_delay": ms.Float32,
        "late": ms.Boolean,
    },
    event_time="landed_at",
    checks=[ms.checks.not_null("flight", "arr_delay", "late"), ms.checks.unique("flight")],
    description="Flights that landed; landing is estimated as departure + air time + 25 minutes on the ground",
    owner="flights",
)

weather = ms.Source(
    "weather",
    schema={
        "origin": ms.String,
        "temp": ms.Float32,
        "humid": ms.Float32,
        "wind_speed": ms.Float32,
        "precip": ms.Float32,
        "pressure": ms.Float32,
        "visib": ms.Float32,
    },
    event_time="hour",
    lag="15m",
    checks=[ms.checks.not_null("origin"), ms.checks.in_range("wind_speed", 0, 120), ms.checks.in_range("visib", 0, 10)],
    description="Hourly observations at the three airports, published 15 minutes after their hour",
    owner="flights",
)


@ms.feature_view(entity=origin, source=departures, owner="flights")
class OriginTraffic:
    """Recent departures of an airport."""

    departures_1h = ms.count(window="1h")
    mean_delay_1h = ms.mean("dep_delay", window="1h")
    mean_delay_3h = ms.mean("dep_delay", window="3h")
    max_delay_3h = ms.max("dep_delay", window="3h")
    late_share_3h = ms.mean(ms.col("dep_delay") > 15, window="3h")
    late_share_24h = ms.mean(ms.col("dep_delay") > 15, window="24h")


@ms.feature_view(entity=carrier, source=departures, owner="flights")
class CarrierTraffic:
    """Recent departures of an airline from New York."""

    departures_3h = ms.count(window="3h")
    mean_delay_3h = ms.mean("dep_delay", window="3h")
    late_share_3h = ms.mean(ms.col("dep_delay") > 15, window="3h")
    late_share_24h = ms.mean(ms.col("dep_delay") > 15, window="24h")


@ms.feature_view(entity=destination, source=arrivals, owner="flights")
class DestinationArrivals:
    """Recent arrivals at an airport."""

    arrivals_6h = ms.count(window="6h")
    mean_delay_6h = ms.mean("arr_delay", window="6h")
    late_share_6h = ms.mean("late", window="6h")
    late_share_48h = ms.mean("late", window="48h")


@ms.feature_view(entity=origin, source=weather, owner="flights")
class Weather:
    """The newest observation at the airport of departure."""

    temp = ms.last("temp", ttl="3h")
    humid = ms.last("humid", ttl="3h")
    wind_speed = ms.last("wind_speed", ttl="3h")
    precip = ms.last("precip", ttl="3h")
    pressure = ms.last("pressure", ttl="3h")
    visib = ms.last("visib", ttl="3h")


@ms.request_features
class Schedule:
    """Features of the timetable."""

    hour = ms.col("scheduled_departure").hour(NEW_YORK)
    weekday = ms.col("scheduled_departure").weekday(NEW_YORK)
    distance = ms.col("distance")
    origin = ms.col("origin")
    carrier = ms.col("carrier")


flights = ms.Observations(
    schedule,
    keys=[flight, origin, carrier, destination],
    at=ms.col("scheduled_departure") - ms.hours(2),
)
