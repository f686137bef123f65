"""Measured sizes of models against the bound on the memory of a gateway's process."""

from __future__ import annotations

from collections.abc import Iterable

from mainspring.core.errors import NotFound, TooLarge
from mainspring.delivery.routing import version_of
from mainspring.project import Project
from mainspring.registry.model import ModelVersion
from mainspring.serving.devices.device import ON_GPUS
from mainspring.serving.model import Endpoint


def check_memory(project: Project, version: ModelVersion, endpoints: Iterable[Endpoint], gated: set[str]) -> None:
    """Raise if a version's model, as it was measured on this machine, does not fit beside the resident ones.

    A version that no gateway of this machine has loaded yet is measured, and checked, when one does.

    Raises:
        TooLarge: It does not fit, whichever models leave.
    """
    bound, served = project.settings.memory_a_process, [each for each in endpoints if each.device not in ON_GPUS]
    if bound is None or not served:
        return
    from mainspring.project.model_memory import model_memory

    sizes = model_memory(project.settings, "").sizes
    size = sizes.find(version.digest)
    if size is None or not size.sure:
        return
    held: dict[str, int] = {}
    for each in project.definitions.endpoints.values():
        if each.resident and each.device not in ON_GPUS and each not in served:
            try:
                other = version_of(each, project.versions, gated=gated)
            except NotFound:  # nothing of it is loaded
                continue
            if (known := sizes.find(other.digest)) is not None and other.digest != version.digest:
                held[other.digest] = known.nbytes
    missing = size.nbytes + sum(held.values()) - bound
    if missing > 0:
        beside = f" beside the {sum(held.values()):,} of resident models" if held else ""
        raise TooLarge(
            f"The model of endpoint {served[0].name!r}, version {version.version} of {version.model!r}, takes "
            f"{size.nbytes:,} bytes{beside}, and each process has {bound:,} bytes for models: {missing:,} bytes are "
            "missing.",
            fix="raise `memory` in the profile's table `gateway`, or let fewer endpoints be resident.",
        )
