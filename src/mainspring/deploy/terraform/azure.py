"""Values of Azure's module: what surrounds endpoints of Azure Machine Learning. The endpoints are made by `az ml`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.deploy.alarms import LONGEST_S, BurnAlarm
from mainspring.deploy.manifests.clouds.azureml import AzureOptions, deployment_names, group_of
from mainspring.deploy.manifests.kinds import object_name
from mainspring.deploy.targets.model import Deployment
from mainspring.deploy.terraform.grants import Grant, grants, grants_page, grants_text
from mainspring.deploy.terraform.hcl import attributes, comment
from mainspring.deploy.terraform.module import module_files

CLOUD = "azure"
NETWORK = "network.tf"
_REGION = re.compile(r"[a-z]+\d?")
_IMAGE = re.compile(r"([a-z0-9]{5,50})(-[a-z0-9]+)?\.azurecr\.io/.+")  # some have a part of a hash after their name
# Seconds -> a time that a query may read. Records that arrive up to an hour late are read, too.
_READ = {7_200: "PT2H", 21_600: "PT6H", 86_400: "P1D", 172_800: "P2D"}
_LATE_S = 3600


def azure_files(
    deployment: Deployment,
    options: AzureOptions,
    alarms: Sequence[BurnAlarm],
    sign: Callable[[bytes], bytes],
) -> dict[str, str]:
    """Return the files of the module by name; without a network if the endpoints are public.

    Raises:
        Invalid: The region is none of Azure's, or the image is not in a registry of Azure.
    """
    table = grants(CLOUD)
    values = azure_values(deployment, options, alarms)
    rights = grants_text(table, _role, _own_role)
    found = module_files(CLOUD, deployment, values, iam=rights, page=grants_page(table), sign=sign)
    if options.access == "public":
        del found[NETWORK]
    return found


def azure_values(deployment: Deployment, options: AzureOptions, alarms: Sequence[BurnAlarm] = ()) -> dict[str, Any]:
    """Return the values of the module's variables.

    Args:
        alarms: Of the project's objectives; those of other endpoints, and windows beyond a day, are left out.
    """
    if not _REGION.fullmatch(deployment.region):
        raise Invalid(
            f"The region of target {deployment.target!r} is {deployment.region!r}.", fix='write region = "westeurope".'
        )
    network = {"network": options.subnet, "clients": sorted(set(options.clients))}
    return {
        "project": deployment.project,
        "target": deployment.target,
        "name": object_name(deployment.project, deployment.target),
        "region": deployment.region,
        "subscription": options.subscription,
        "resource_group": options.resource_group,
        "workspace": options.workspace,
        "registry": _registry(deployment, options),
        "endpoints": dict(deployment_names(deployment, options).values()),
        "deployed": True,
        "callers": sorted(set(options.callers)),
        "deployers": sorted(set(options.deployers)),
        **(network if options.access == "private" else {}),
        "notify": options.notify,
        "burning": dict(_burning(deployment, options, alarms)) if options.notify else {},
    }


def _registry(deployment: Deployment, options: AzureOptions) -> str:
    """Return the resource id of the image's registry."""
    parts = _IMAGE.fullmatch(deployment.image)
    if parts is None:
        raise Invalid(
            f"The image {deployment.image!r} is in no registry of Azure, where the module lets it be read.",
            fix="push it to one, and write NAME.azurecr.io/REPOSITORY@sha256:...",
        )
    if not options.registry:
        return f"{group_of(options)}/providers/Microsoft.ContainerRegistry/registries/{parts[1]}"
    if options.registry.rpartition("/")[2].lower() != parts[1]:
        raise Invalid(
            f"The image {deployment.image!r} is not in the registry {options.registry!r}.",
            fix="write the resource id of the image's registry, or leave out `registry`.",
        )
    return options.registry


def _burning(
    deployment: Deployment, options: AzureOptions, alarms: Sequence[BurnAlarm]
) -> Iterator[tuple[str, dict[str, Any]]]:
    names = deployment_names(deployment, options)
    for each in alarms:
        if each.endpoint not in names or each.long_s > LONGEST_S:
            continue
        name, _ = names[each.endpoint]
        yield (
            f"{name}-{each.name}",
            {
                "about": each.told(each.long_s, each.short_s),
                "endpoint": name,
                "share": each.share,
                "within": each.within_s * 1000,
                "fewest": each.fewest,
                "long": each.long_s,
                "short": each.short_s,
                "read": next(text for seconds, text in _READ.items() if seconds >= each.long_s + _LATE_S),
                "severity": 1 if each.page else 3,
            },
        )


def _role(made: Grant) -> Mapping[str, str]:
    if made.permissions:
        return {"role_definition_id": f"azurerm_role_definition.{made.name}.role_definition_resource_id"}
    return {"role_definition_name": json.dumps(made.role)}


def _own_role(made: Grant) -> Iterator[str]:
    """Yield the lines of a role of the module's own. Names of roles are of the whole organisation."""
    yield from comment(f"{made.who}: {', '.join(made.permissions)} alone.", 0)
    yield f'resource "azurerm_role_definition" {json.dumps(made.name)} {{'
    fields = {
        "name": f'"${{var.name}}: {made.role} (${{local.workspace}})"',
        "scope": "local.group",
        "assignable_scopes": "[local.group]",
    }
    yield from attributes(fields, 2)
    yield "\n  permissions {"
    actions = "".join(f"      {json.dumps(each)},\n" for each in made.permissions)
    yield from attributes({"actions": f"[\n{actions}    ]"}, 4)
    yield "  }\n}"
