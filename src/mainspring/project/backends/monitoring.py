"""Adapters of monitors and incidents, and notifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mainspring.core.errors import Invalid
from mainspring.core.settings import Receiver, Settings
from mainspring.core.time import Clock
from mainspring.project.backends.base import Build, by_catalog, lazily
from mainspring.project.ledger_folder import lake_digest
from mainspring.project.receivers import variable

if TYPE_CHECKING:
    from mainspring.monitoring.adapters.notify_http import SignedPosts
    from mainspring.monitoring.notify.ports import Notifier

SKETCHES: Mapping[str, Build] = {
    "file": lambda at: lazily("monitoring.adapters.lake", "LakeSketches", extra="local")(at.project.lake),
    "memory": lambda _: lazily("monitoring.adapters.memory", "MemorySketches", extra="local")(),
}
MONITORS: Mapping[str, Build] = by_catalog(
    lambda at: lazily("monitoring.adapters.catalog", "CatalogMonitors", extra="local")(
        at.project.engine, lake_digest(at.project.settings)
    )
)
INCIDENTS: Mapping[str, Build] = by_catalog(
    lambda at: lazily("monitoring.adapters.incidents", "CatalogIncidents", extra="local")(
        at.project.engine, lake_digest(at.project.settings)
    )
)
SERVICE_STORES: Mapping[str, Build] = by_catalog(
    lambda at: lazily("monitoring.adapters.service", "CatalogService", extra="local")(at.project.engine)
)


def notifier(kind: str, settings: Settings, name: str) -> Notifier:
    """Return the notifier of a declared receiver.

    Raises:
        Invalid: The profile has no settings for it, or not all that its kind needs.
    """
    receiver = _receiver(kind, settings, name)
    module, adapter = {
        "webhook": ("notify_http", "WebhookNotifier"),
        "slack": ("notify_http", "SlackNotifier"),
        "email": ("notify_email", "EmailNotifier"),
        "alertmanager": ("notify_http", "AlertmanagerNotifier"),
        "pagerduty": ("notify_http", "PagerDutyNotifier"),
    }[kind]
    made: Notifier = lazily(f"monitoring.adapters.{module}", adapter, extra="gateway")(receiver)
    return made


def signed_posts(settings: Settings, name: str, clock: Clock) -> SignedPosts:
    """Return what posts outputs to a declared webhook; raises as `notifier`."""
    receiver = _receiver("webhook", settings, name)
    made: SignedPosts = lazily("monitoring.adapters.notify_http", "SignedPosts", extra="gateway")(receiver, clock)
    return made


def _receiver(kind: str, settings: Settings, name: str) -> Receiver:
    receiver = settings.receivers.get(variable(name))
    needs = {"email": ("url", "sender", "to"), "pagerduty": ("secret",)}.get(kind, ("url",))
    missing = [field for field in needs if receiver is None or not getattr(receiver, field)]
    if receiver is None or missing:
        raise Invalid(
            f"The receiver {name!r} has no {missing[0]} in profile {settings.profile!r}.",
            fix=f"set MAINSPRING_NOTIFY_{variable(name)}_{missing[0].upper()}, or {missing[0]} in "
            f"[profiles.{settings.profile}.notify.{name}].",
        )
    if receiver.url and receiver.url.startswith("smtp") != (kind == "email"):
        fix = "write smtp://host:587." if kind == "email" else "write https://host/path."
        raise Invalid(f"The url of the receiver {name!r} does not fit its kind, {kind}.", fix=fix)
    return receiver
