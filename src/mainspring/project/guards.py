"""Guards of language models, with this installation's key, secrets and policies."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from mainspring.core.errors import Invalid
from mainspring.core.ids import new_id
from mainspring.core.settings import Settings, Url
from mainspring.llm.answering import Assemble, assemble
from mainspring.llm.declaring import LanguageModel
from mainspring.llm.guarding.answering import Guarded
from mainspring.llm.guarding.calls import Ruling, parsed
from mainspring.llm.guarding.fingerprints import Fingerprints
from mainspring.llm.held_calls import HeldCall
from mainspring.llm.ports import Answering, Upstream
from mainspring.project.upstreams import key_of
from mainspring.security.model import Kind, Principal
from mainspring.security.people import KEY
from mainspring.security.tool_calls import ToolCallPolicies

if TYPE_CHECKING:
    from mainspring.project.composition import Project


def guarded(project: Project, inner: Assemble = assemble) -> Assemble:
    """Return what puts a language model's guard, where it has one, before all else that stands before its upstreams."""

    @cache
    def installation() -> tuple[bytes, ToolCallPolicies, InstallationSecrets]:
        return (
            hmac.digest(project.pepper, b"canaries of language models", "sha256"),
            ToolCallPolicies(project.settings.project, project.policy_files),
            InstallationSecrets(project.settings),
        )

    def hold(model: str, ruling: Ruling, caller: Principal) -> HeldCall | None:
        arguments = json.dumps(parsed(ruling.call.arguments), sort_keys=True, ensure_ascii=False)
        return project.held_calls.ask(
            HeldCall(
                id=new_id(),
                model=model,
                tool=ruling.call.name,
                arguments=arguments,
                digest=ruling.digest,
                caller=recorded(caller),
                asked_at=project.wall.now(),
            )
        )

    def put_together(model: LanguageModel, upstreams: Mapping[str, Upstream]) -> Answering:
        answering = inner(model, upstreams)
        if model.guard is None:
            return answering
        key, policies, secrets = installation()
        return Guarded(
            answering, model.name, model.guard, key=key, permits=policies.permits, secrets=secrets, hold=hold
        )

    return put_together


def recorded(caller: Principal) -> str:
    """Return the name of a caller in records."""
    if caller.kind is Kind.KEY:
        return f"{KEY}{caller.id}:{caller.name}"
    return f"{caller.kind}:{caller.id}"


class InstallationSecrets:
    """Fingerprints of the profile's secrets. A key of an upstream that its file has later is added to those before."""

    def __init__(self, settings: Settings) -> None:
        self._servers = settings.upstreams
        self._keys: dict[str, Callable[[], str]] = {}
        self._texts = dict.fromkeys(_fixed_secrets(settings))
        self._prints: Fingerprints | None = None

    def __call__(self) -> Fingerprints:
        new = [each for each in self.keys() if each not in self._texts]
        if new or self._prints is None:
            self._texts.update(dict.fromkeys(new))
            self._prints = Fingerprints(self._texts)
        return self._prints

    def keys(self) -> Iterator[tuple[str, str]]:
        """Yield the keys of upstreams, without those that cannot be read: nobody here knows them."""
        for name, server in self._servers.items():
            if name not in self._keys:
                with suppress(Invalid):
                    self._keys[name] = key_of(server)
            if name in self._keys:
                yield f"key of upstream {name}", self._keys[name]()


def installation_secrets(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the secrets of the profile, with a name for each: keys of upstreams, passwords of servers, and those of
    receivers, webhooks and the identity provider.
    """
    yield from InstallationSecrets(settings).keys()
    yield from _fixed_secrets(settings)


def _fixed_secrets(settings: Settings) -> Iterator[tuple[str, str]]:
    for name, receiver in settings.receivers.items():
        yield f"secret of receiver {name}", receiver.secret
    yield "secret of webhooks", settings.webhook_secret
    yield "pepper", settings.pepper.hex()
    if settings.sign_in is not None:
        yield "secret of the identity provider", settings.sign_in.client_secret
    for name in settings.__slots__:
        value = getattr(settings, name)
        if isinstance(value, Url):
            yield f"password of {name}", unquote(urlsplit(value.text).password or "")
