"""Beam's options of batch runs, as they are written on its command line, checked before anything is sent."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from mainspring.core.errors import Invalid

# In this process. Beam's DirectRunner may fetch a program over the network, and start it.
LOCAL = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_LOCAL_NAMES = frozenset({"", "direct", "fnapi"})
_SECRET = frozenset({"s3_access_key_id", "s3_secret_access_key", "s3_session_token", "azure_connection_string"})
_DATAFLOW = {
    "project": "--project=PROJECT",
    "region": "--region=europe-west4",
    "service_account_email": "--service_account_email=NAME@PROJECT.iam.gserviceaccount.com, with few rights",
    "sdk_container_image": "--sdk_container_image=IMAGE, with Mainspring, Beam and the project's folder",
    "max_num_workers": "--max_num_workers=10, which bounds the cost",
}


@dataclass(frozen=True, slots=True)
class BeamOptions:
    """Options of a run.

    Attributes:
        words: For Beam, with the defaults that are more careful than its own.
        local: Whether the run is in this process.
        workers: How many workers there are at most.
        temp: Folder or bucket for the answers of the workers; empty for a local run.
    """

    words: tuple[str, ...]
    local: bool
    workers: int
    temp: str = ""


def beam_options(text: str, processors: int) -> BeamOptions:
    """Return the options of a profile's `beam`.

    Args:
        processors: Workers of a local run that does not say how many.

    Raises:
        Invalid: An option is missing, or is not taken.
    """
    given = _given(text)
    runner = given.get("runner", "")
    kind = runner.rpartition(".")[2].lower().removesuffix("runner")
    if kind in _LOCAL_NAMES:
        count = _workers(given.get("direct_num_workers", str(processors)), "direct_num_workers")
        kept = {each: value for each, value in given.items() if each != "runner"}
        words = {
            **kept,
            "runner": LOCAL,
            "direct_num_workers": str(count),
            "direct_running_mode": "in_memory" if count == 1 else "multi_threading",
        }
        return BeamOptions(_words(words), True, count)
    if kind == "dataflow":
        given = _of_dataflow(given)
    temp = given.get("temp_location", "")
    if not temp:
        raise Invalid(
            f"Batch runs on Beam's {runner} need a place for the answers of its workers.",
            fix="add --temp_location=gs://BUCKET/FOLDER, or a folder that the workers share.",
        )
    number = next((given[each] for each in ("max_num_workers", "num_workers", "parallelism") if each in given), "1")
    return BeamOptions(_words(given), False, _workers(number, "max_num_workers"), temp.rstrip("/"))


def _given(text: str) -> dict[str, str]:
    """Return the options by name, empty for one without a value."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise Invalid(f"The setting beam is {text!r}: {error}.", fix="close the quotes.") from None
    found = dict[str, str]()
    for word in words:
        name, _, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name.isidentifier() or name in found:
            raise Invalid(
                f"The setting beam has {word!r}.", fix='write each option once, as in "--runner=DataflowRunner".'
            )
        if name in _SECRET:
            raise Invalid(
                f"The setting beam has --{name}, which Beam shows to everyone who sees the job.",
                fix="give the workers an account of the cloud.",
            )
        if name in ("save_main_session", "pickle_library"):
            raise Invalid(
                f"The setting beam has --{name}.",
                fix="leave it out: the workers import the project.",
            )
        found[name] = value
    return found


def _of_dataflow(given: dict[str, str]) -> dict[str, str]:
    if missing := [told for name, told in _DATAFLOW.items() if not given.get(name)]:
        raise Invalid(f"Batch runs on Dataflow lack {len(missing)} options.", fix=f"add {missing[0]}.")
    temp = given.get("temp_location", "")
    if temp and not temp.startswith("gs://"):
        raise Invalid(f"Dataflow's temp_location is {temp!r}.", fix="write gs://BUCKET/FOLDER.")
    if not {"use_public_ips", "no_use_public_ips"} & set(given):
        given = {**given, "no_use_public_ips": ""}
    return given


def _workers(value: str, name: str) -> int:
    if not value.isascii() or not value.isdigit() or not 0 < int(value) <= 10_000:
        raise Invalid(f"The setting beam has --{name}={value}.", fix="write a number from 1 to 10,000.")
    return int(value)


def _words(options: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"--{name}={value}" if value else f"--{name}" for name, value in options.items())
