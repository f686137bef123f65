"""Kinds of targets, and records of what was deployed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mainspring.project.backends.base import Build, by_catalog, lazily

if TYPE_CHECKING:
    from mainspring.core.settings import TargetSetting
    from mainspring.deploy.targets.ports import Target
    from mainspring.project import Project

RECORDS: Mapping[str, Build] = by_catalog(
    lambda at: lazily("deploy.adapters.deployed_pieces", "CatalogRecords", extra="gateway")(at.project.engine)
)


def _systemd(project: Project, setting: TargetSetting) -> Any:
    from mainspring.deploy.adapters.targets.options import read_options
    from mainspring.deploy.adapters.targets.systemd import SystemdOptions, SystemdTarget

    return SystemdTarget(read_options(SystemdOptions, setting.options, setting.name), project.settings.root)


def _compose(project: Project, setting: TargetSetting) -> Any:
    from mainspring.deploy.adapters.targets.compose import ComposeOptions, ComposeTarget
    from mainspring.deploy.adapters.targets.options import read_options

    return ComposeTarget(read_options(ComposeOptions, setting.options, setting.name), project.settings.root)


def _image(project: Project, setting: TargetSetting) -> Any:
    from mainspring.deploy.adapters.targets.image import ImageOptions, ImageTarget
    from mainspring.deploy.adapters.targets.options import read_options
    from mainspring.project.image_content import ProjectParts

    options = read_options(ImageOptions, setting.options, setting.name)
    return ImageTarget(options, project.settings.root, ProjectParts(project, setting.profile))


KINDS: Mapping[str, Callable[[Project, TargetSetting], Target]] = {
    "compose": _compose,
    "image": _image,
    "systemd": _systemd,
}
