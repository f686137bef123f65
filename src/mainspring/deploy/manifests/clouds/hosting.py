"""Containers of managed services: what they are told, and what none of the services can give them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.deploy.targets.model import Deployment, Service


def check_hosted(deployment: Deployment, place: str, longest_s: int) -> None:
    """Raise if a service could not run the deployment's image as it is.

    Args:
        longest_s: Time that the service waits for an answer at most.

    Raises:
        Invalid: It needs secrets, no replica, an endpoint that has no version yet, or a longer answer.
    """
    for each in deployment.services:
        if each.deadline_ms > 1000 * longest_s:
            raise Invalid(
                f"The endpoint {each.endpoint!r} has a deadline of {each.deadline_ms / 1000:g} s, and {place} waits "
                f"{longest_s} s for an answer.",
                fix="give it a shorter deadline, or score such rows in batches (docs/howto/batch.md).",
            )
    if deployment.secrets:
        raise Invalid(
            f"{place} gives a container no secrets, and target {deployment.target!r} names {deployment.secrets[0]}.",
            fix="deploy an image with a sealed catalog, which needs none (docs/howto/images.md).",
        )
    if not deployment.replicas[0]:
        raise Invalid(f"{place} keeps at least one replica of an endpoint.", fix="write replicas = [1, N].")
    if missing := next((each.endpoint for each in deployment.services if not each.version), ""):
        raise Invalid(f"The endpoint {missing!r} has no version.", fix="train and promote one first.")


def hosted_variables(deployment: Deployment, service: Service, variable: str) -> Mapping[str, str]:
    """Return the variables of an endpoint's container, by name.

    Args:
        variable: By which the container knows the service, with the endpoint as its value.
    """
    endpoint = f"{service.endpoint}:{service.version.rpartition(':')[2]}"
    own = {"MAINSPRING_GATEWAY": f"0.0.0.0:{deployment.port}", variable: endpoint}
    return dict(sorted({**deployment.env, **own}.items()))


def short_digest(body: Any) -> str:
    """Return some hexadecimal digits that differ where a body does."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:10]
