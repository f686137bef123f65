"""The port of preemption notices, and the clouds that have an adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mainspring.core.errors import MainspringError
from mainspring.training.preemption.names import DETECT, check_name

LINK_LOCAL = "http://169.254.169.254"  # of the metadata service in each of the clouds
_DMI = Path("/sys/class/dmi/id")
_VENDORS = {"Amazon EC2": "aws", "Google": "gcp", "Microsoft Corporation": "azure"}
_AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"  # Microsoft also makes laptops


@dataclass(frozen=True, slots=True)
class Notice:
    """An announcement that a machine will be taken back.

    Args:
        within_s: Seconds that are left; none are known of a warning.
        ends: False for a warning that it may happen: a checkpoint is due, and work goes on.
    """

    what: str
    within_s: float | None
    ends: bool = True


class Unheard(MainspringError):
    """The metadata service does not answer as it should."""


class PreemptionNotices(Protocol):
    """Notices of one machine. For one thread."""

    name: str
    least_s: float  # seconds between a notice and the end that the cloud promises

    def look(self, wait_s: float) -> Notice | None:
        """Return the notice that this machine has, `None` if it has none; wait for one at most so long.

        A warning is returned once, an announced end each time.

        Raises:
            Unheard: The service is not reached, or its answer is none of its own.
        """
        ...


def _aws() -> PreemptionNotices:
    from mainspring.training.preemption.aws import AwsNotices

    return AwsNotices()


def _gcp() -> PreemptionNotices:
    from mainspring.training.preemption.gcp import GcpNotices

    return GcpNotices()


def _azure() -> PreemptionNotices:
    from mainspring.training.preemption.azure import AzureNotices

    return AzureNotices()


CLOUDS: dict[str, Callable[[], PreemptionNotices]] = {"aws": _aws, "gcp": _gcp, "azure": _azure}


def notices_of(name: str, dmi: Path = _DMI) -> PreemptionNotices | None:
    """Return the notices of a cloud, of the one that the machine's firmware names for "detect"; `None` for none.

    Raises:
        Invalid: The name is unknown.
    """
    check_name(name)
    found = detected(dmi) if name == DETECT else name
    return CLOUDS[found]() if found else None


def detected(dmi: Path = _DMI) -> str:
    """Return the cloud that the machine's firmware names, without the network; empty for none."""

    def said(name: str) -> str:
        try:
            return (dmi / name).read_text(errors="replace").strip()
        except OSError:
            return ""

    found = _VENDORS.get(said("sys_vendor"), "")
    return "" if found == "azure" and said("chassis_asset_tag") != _AZURE_TAG else found
