"""Kinds of targets, and records of what was deployed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Invalid
from mainspring.project.backends.base import Build, by_catalog, lazily

if TYPE_CHECKING:
    from mainspring.core.settings import Settings, TargetSetting
    from mainspring.deploy.targets.ports import Target
    from mainspring.project import Project

RECORDS: Mapping[str, Build] = by_catalog(
    lambda at: lazily("deploy.adapters.deployed_pieces", "CatalogRecords", extra="gateway")(at.project.engine)
)


def folder_of(target: Target) -> str:
    """Return the folder into which a target's pieces are written; empty if they are nothing in one."""
    from mainspring.deploy.adapters.targets.folder import Folder
    from mainspring.deploy.adapters.targets.image import ImageTarget

    return str(target.path) if isinstance(target, Folder | ImageTarget) else ""


def _systemd(project: Project, setting: TargetSetting) -> Any:
    from mainspring.deploy.adapters.targets.options import read_options
    from mainspring.deploy.adapters.targets.systemd import SystemdOptions, SystemdTarget

    options = read_options(SystemdOptions, setting.options, setting.name)
    return SystemdTarget(options, project.settings.root, _watching(project, setting) if options.monitoring else None)


def _compose(project: Project, setting: TargetSetting) -> Any:
    from mainspring.deploy.adapters.targets.compose import ComposeOptions, ComposeTarget
    from mainspring.deploy.adapters.targets.options import read_options

    options = read_options(ComposeOptions, setting.options, setting.name)
    return ComposeTarget(options, project.settings.root, _watching(project, setting) if options.prometheus else None)


def _image(project: Project, setting: TargetSetting) -> Any:
    from mainspring.deploy.adapters.targets.image import ImageOptions, ImageTarget
    from mainspring.deploy.adapters.targets.options import read_options
    from mainspring.project.image_code import USUAL, Whole
    from mainspring.project.image_content import ProjectParts

    options = read_options(ImageOptions, setting.options, setting.name)
    whole = Whole(tuple(options.files) or USUAL, tuple(options.extras)) if options.contents == "project" else None
    return ImageTarget(options, project.settings.root, ProjectParts(project, setting.profile, whole))


def _cluster(project: Project, setting: TargetSetting) -> Any:
    from mainspring.deploy.adapters.targets.kubernetes import serving_target
    from mainspring.deploy.adapters.targets.options import read_options
    from mainspring.deploy.manifests.serving.options import KubernetesOptions

    options = read_options(KubernetesOptions, setting.options, setting.name)
    return serving_target(options, _around_pods(project, setting))


def _helm(project: Project, setting: TargetSetting) -> Any:
    from mainspring.deploy.adapters.targets.helm import HelmOptions, HelmTarget
    from mainspring.deploy.adapters.targets.options import read_options

    options = read_options(HelmOptions, setting.options, setting.name)
    return HelmTarget(options, _around_pods(project, setting), project.settings.root)


def _kserve(project: Project, setting: TargetSetting) -> Any:
    from mainspring.deploy.adapters.targets.kubernetes import kserve_target
    from mainspring.deploy.adapters.targets.options import read_options
    from mainspring.deploy.manifests.serving.kserve import KserveOptions

    return kserve_target(read_options(KserveOptions, setting.options, setting.name), _around_pods(project, setting))


def _kuberay(project: Project, setting: TargetSetting) -> Any:
    from mainspring.deploy.adapters.targets.kubernetes import kuberay_target
    from mainspring.deploy.adapters.targets.options import read_options
    from mainspring.deploy.manifests.serving.ray_clusters import KuberayOptions

    return kuberay_target(read_options(KuberayOptions, setting.options, setting.name), _around(project, setting))


def _terraform(project: Project, setting: TargetSetting) -> Any:
    from mainspring.deploy.adapters.targets.options import read_options
    from mainspring.deploy.adapters.targets.terraform import TerraformTarget
    from mainspring.deploy.terraform.options import TerraformOptions
    from mainspring.project.image_content import ProjectParts
    from mainspring.project.objective_alarms import objective_alarms

    options = read_options(TerraformOptions, setting.options, setting.name)
    around, sign = _around(project, setting), ProjectParts(project, setting.profile).sign
    return TerraformTarget(
        options,
        project.settings.root,
        around.drain_s,
        around.hosts,
        sign,
        lambda: objective_alarms(project.definitions.monitors.values()),
    )


def _vertex(project: Project, setting: TargetSetting) -> Any:
    from mainspring.deploy.adapters.targets.clouds import vertex_target
    from mainspring.deploy.adapters.targets.options import read_options
    from mainspring.deploy.manifests.clouds.vertex import VertexOptions

    return vertex_target(read_options(VertexOptions, setting.options, setting.name), *_of_module(project, setting))


def _azureml(project: Project, setting: TargetSetting) -> Any:
    from mainspring.deploy.adapters.targets.clouds import azure_target
    from mainspring.deploy.adapters.targets.options import read_options
    from mainspring.deploy.manifests.clouds.azureml import AzureOptions

    return azure_target(read_options(AzureOptions, setting.options, setting.name), *_of_module(project, setting))


def _of_module(project: Project, setting: TargetSetting) -> Any:
    """Return the project's folder, its signature, and its alarms."""
    from mainspring.project.image_content import ProjectParts
    from mainspring.project.objective_alarms import objective_alarms

    return (
        project.settings.root,
        ProjectParts(project, setting.profile).sign,
        lambda: objective_alarms(project.definitions.monitors.values()),
    )


def _sagemaker(project: Project, setting: TargetSetting) -> Any:
    from mainspring.deploy.adapters.targets.options import read_options
    from mainspring.deploy.sagemaker.options import SagemakerOptions
    from mainspring.project.image_content import is_sealed
    from mainspring.project.objective_alarms import objective_alarms

    options = read_options(SagemakerOptions, setting.options, setting.name)
    target = lazily("deploy.adapters.targets.sagemaker", "SagemakerTarget", extra="sagemaker")
    return target(
        options,
        setting.region,
        follows=not is_sealed(_settings(project, setting)),
        alarms=lambda: objective_alarms(project.definitions.monitors.values()),
    )


def _around_pods(project: Project, setting: TargetSetting) -> Any:
    """Return the facts of a profile whose planes are in pods.

    Raises:
        Invalid: A plane has a certificate: probes, routes and Prometheus ask pods in plain HTTP.
    """
    settings = _settings(project, setting)
    for plane, tls in (("gateway", settings.gateway_tls), ("control", settings.control_tls)):
        if tls is not None:
            raise Invalid(
                f"Profile {setting.profile!r} sets {plane}_tls_cert, and the cluster asks pods in plain HTTP.",
                fix="name a profile without it: the cluster's Gateway, or its mesh, has the certificates.",
            )
    return _around(project, setting)


def _settings(project: Project, setting: TargetSetting) -> Settings:
    from mainspring.project.settings import load_settings

    return load_settings(project.settings.root, setting.profile, environment=dict(setting.env))


def _around(project: Project, setting: TargetSetting) -> Any:
    """Return the facts of a target's profile. They are as the file has them, so that every machine renders the same."""
    from mainspring.deploy.manifests.serving.objects import Around
    from mainspring.monitoring.service.dashboards import dashboard
    from mainspring.monitoring.service.prometheus_rules import rules
    from mainspring.project.servers import servers

    settings = _settings(project, setting)

    def groups() -> list[Any]:
        found: list[Any] = rules(project.definitions.monitors.values(), tenant=settings.tenant)["groups"]
        return found

    drain_s = -(-settings.gateway_limits.drain_us // 1_000_000)

    def shown() -> str:
        return json.dumps(dashboard(tenant=settings.tenant))

    return Around(servers(settings, setting.secrets), drain_s, groups, settings.allowed_hosts, shown)


def _watching(project: Project, setting: TargetSetting) -> Any:
    """Return the project's monitoring with the addresses of the target's profile."""
    from mainspring.deploy.adapters.targets.watching import Watching
    from mainspring.monitoring.service.dashboards import dashboard
    from mainspring.monitoring.service.prometheus_rules import rules, yaml
    from mainspring.monitoring.service.prometheus_scrape import scrape_config

    settings = _settings(project, setting)
    tenant = settings.tenant
    return Watching(
        settings.gateway,
        settings.control,
        settings.allowed_hosts,
        lambda: yaml(rules(project.definitions.monitors.values(), tenant=tenant)),
        lambda: json.dumps(dashboard(tenant=tenant), indent=2) + "\n",
        partial(scrape_config, tenant=tenant),
    )


KINDS: Mapping[str, Callable[[Project, TargetSetting], Target]] = {
    "azureml": _azureml,
    "compose": _compose,
    "helm": _helm,
    "image": _image,
    "kserve": _kserve,
    "kuberay": _kuberay,
    "kubernetes": _cluster,
    "sagemaker": _sagemaker,
    "systemd": _systemd,
    "terraform": _terraform,
    "vertex": _vertex,
}
