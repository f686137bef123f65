"""Guards of language models, with this installation's key, secrets and policies."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator, Mapping
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
from mainspring.security.model import Kind, Principal
from mainspring.security.people import KEY
from mainspring.security.secrets import read_private
from mainspring.security.tool_calls import ToolCallPolicies

if TYPE_CHECKING:
    from mainspring.project.composition import Project


def guarded(project: Project, inner: Assemble = assemble) -> Assemble:
    """Return what puts a language model's guard, where it has one, before all else that stands before its upstreams."""

    @cache
    def installation() -> tuple[bytes, ToolCallPolicies, Fingerprints]:
        return (
            hmac.digest(project.pepper, b"canaries of language models", "sha256"),
            ToolCallPolicies(project.settings.project, project.policy_files),
            Fingerprints(installation_secrets(project.settings)),
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


def installation_secrets(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the secrets of the profile, with a name for each: keys of upstreams, passwords of servers, and those of
    receivers, webhooks and the identity provider. A key that cannot be read is not among them: nobody here knows it.
    """
    for name, server in settings.upstreams.items():
        key = server.key
        if server.key_file is not None:
            with suppress(Invalid):
                key = read_private(server.key_file, f"key of the upstream {server.name!r}").decode("latin-1").strip()
        yield f"key of upstream {name}", key
    for name, receiver in settings.receivers.items():
        yield f"secret of receiver {name}", receiver.secret
    yield "secret of webhooks", settings.webhook_secret
    if settings.sign_in is not None:
        yield "secret of the identity provider", settings.sign_in.client_secret
    for name in settings.__slots__:
        value = getattr(settings, name)
        if isinstance(value, Url):
            yield f"password of {name}", unquote(urlsplit(value.text).password or "")
