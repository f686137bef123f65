"""Sign-in of the command line at the identity provider, on a person's machine.

What the provider gave is kept for this user of the machine and this project. The machine's user is bound to the
person's account, so what is trained here is known to be theirs.
"""

from __future__ import annotations

import http.client
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import msgspec

from mainspring.core.errors import Denied, Invalid, Unavailable
from mainspring.core.time import SECOND
from mainspring.operations.access import bind_name
from mainspring.operations.auditing import audit
from mainspring.operations.plane_connection import connect
from mainspring.project import Project
from mainspring.registry.processes import local_user
from mainspring.security.model import Account, Kind
from mainspring.security.oidc import Identity, Pending, Provider, Refused, Tokens
from mainspring.security.sign_ins import account_of
from mainspring.security.tokens import NotAccepted, expiry, parse

_SLOWER_S = 5  # RFC 8628, section 3.5
_BROWSER_S = 300
_EARLY_US = 60 * SECOND  # before the expiry of a token a new one is asked for
_AGAIN = "run `mainspring login`."

Show = Callable[[str, str], None]  # an address to open, and a code to compare; empty for none


class _Kept(msgspec.Struct, frozen=True):
    """The sign-in as it is kept."""

    issuer: str
    client: str
    identity: str  # ID token
    refresh: str


@dataclass(frozen=True, slots=True)
class Signed:
    """A person who is signed in here. `expires_at` (UTC epoch microseconds) is that of the token, which is renewed."""

    account: Account
    token: str
    expires_at: int


def login(
    project: Project,
    show: Show,
    *,
    browser: bool = False,
    sleep: Callable[[float], None] = time.sleep,
    confirm: Callable[[Identity], bool] = lambda _: True,
) -> Signed:
    """Sign a person in, and keep that.

    The provider's device flow (RFC 8628) is used where it has one, else a browser on this machine: an authorization
    code with PKCE, which comes back to a port of loopback (RFC 8252).

    Args:
        show: Called with what the person has to open.
        browser: Use a browser of this machine in any case.
        confirm: Called with who came back by the browser, before they are signed in: another user of this machine may
            have seen the address, and have signed in as themselves.

    Raises:
        Denied: The person refused, was too slow, is not admitted, or their account is disabled.
        Invalid: The profile has no identity provider.
        Unavailable: The provider does not answer.
    """
    provider = _provider(project)
    device = provider.issuer.metadata().device and not browser
    identity, tokens = _by_device(provider, show, sleep) if device else _by_browser(provider, show)
    if not tokens.identity:
        raise NotAccepted("there is no ID token")
    if not device and not confirm(identity):
        raise Denied(f"{identity.name} was not confirmed, and is not signed in.", fix=_AGAIN)
    with project.audit.together():
        account, new = account_of(project.accounts, identity, project.wall.now(), _recorder(project))
        who = f"{Kind.USER}:{account.id}"
        if new:
            audit(project, "accounts.add", f"user/{account.id}", f"first sign-in, {account.name}", who=who)
        bind_name(project, account, local_user(), by=account.issuer)
        audit(project, "cli.login", f"user/{account.id}", local_user(), who=who)
    with _locked(project):
        _keep(project, provider, tokens)
    return Signed(account, tokens.identity, expiry(parse(tokens.identity).claims))


def _locked(project: Project) -> AbstractContextManager[object]:
    return project.locks.hold(f"sign-in-{os.geteuid()}")


def _by_device(provider: Provider, show: Show, sleep: Callable[[float], None]) -> tuple[Identity, Tokens]:
    device = provider.begin_device()
    show(device.complete or device.address, device.user_code)
    wait, left = device.interval_s, device.lifetime_s
    until = time.monotonic() + left
    while left > 0 and time.monotonic() < until:
        sleep(wait)
        left -= wait
        try:
            return provider.poll_device(device)
        except Pending as pending:
            wait += _SLOWER_S if pending.slower else 0
        except Refused:
            raise
        except Unavailable:
            wait *= 2
    raise Denied("The sign-in was not confirmed in time.", fix=_AGAIN)


def _by_browser(provider: Provider, show: Show) -> tuple[Identity, Tokens]:
    answers = queue.SimpleQueue[dict[str, str]]()

    class Back(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path != "/callback":
                self.send_error(404)
                return
            answers.put(dict(parse_qsl(parts.query)))
            content = b"You may close this page, and go on in the terminal.\n"
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):  # a silent connection holds up no other
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Back) as server:
        redirect = f"http://127.0.0.1:{server.server_address[1]}/callback"
        address, attempt = provider.begin(redirect)
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        try:
            show(address, "")
            until = time.monotonic() + _BROWSER_S
            while (left := until - time.monotonic()) > 0:
                with suppress(queue.Empty):
                    answer = answers.get(timeout=left)
                    # Any page can send a browser here: an answer without this attempt's state ends nothing.
                    if answer.get("state") == attempt.state:
                        return provider.finish(attempt, redirect, answer)
        finally:
            server.shutdown()
    raise Denied("No browser came back in five minutes.", fix=_AGAIN)


def logout(project: Project) -> bool:
    """Forget the sign-in that is kept; return whether there was one. The machine's user stays bound."""
    with _locked(project):
        if not project.credentials.delete():
            return False
    audit(project, "cli.logout", "console", local_user())
    return True


def signed_in(project: Project) -> Signed | None:
    """Return who is signed in here, verified, with a token that is valid; `None` if nobody is.

    Raises:
        Denied: The sign-in has expired, was ended by the provider, or the account was disabled or removed.
        Unavailable: The provider does not answer.
    """
    if project.settings.sign_in is None or project.credentials.load() is None:
        return None
    provider = _provider(project)
    with _locked(project):  # a refresh token is often good for one use
        kept = _loaded(project, provider)
        if kept is None:
            return None
        token = parse(kept.identity)
        if expiry(token.claims) - _EARLY_US <= project.wall.now():
            kept, identity = _renewed(project, provider, kept)
            account = account_of(project.accounts, identity, project.wall.now(), _recorder(project))[0]
        else:
            identity = provider.identify(Tokens(kept.identity, "", "", 0), None)
            found = project.accounts.of_subject(identity.issuer, identity.subject)
            if found is None or found.disabled_at is not None:
                raise Denied("Your account was disabled or removed.", fix="ask an administrator of this installation.")
            account = found
    return Signed(account, kept.identity, expiry(parse(kept.identity).claims))


def person(project: Project) -> str:
    """Return who is signed in here, as records name them; empty if nobody is, or it cannot be verified now."""
    try:
        signed = signed_in(project)
    except (Denied, Unavailable):
        return ""
    return "" if signed is None else f"{Kind.USER}:{signed.account.id}"


def actor(project: Project) -> str:
    """Return who acts here for the records: who is signed in, or else the user of this process."""
    return person(project) or local_user()


@dataclass(frozen=True, slots=True)
class Myself:
    """The person who is here, as this machine and the console see it."""

    user: str
    signed: Signed | None
    groups: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    console: str = ""


def whoami(project: Project) -> Myself:
    """Return who is signed in here, and what a running console says of it. Raises as `signed_in` does."""
    signed = signed_in(project)
    if signed is None:
        return Myself(local_user(), None)
    held = project.accounts.holder(signed.account.id)
    groups = () if held is None else tuple(sorted(held.groups))
    roles = () if held is None else tuple(f"{each.role} on {each.resource}" for each in sorted(held.roles))
    return Myself(local_user(), signed, groups, roles, _asked(project, signed))


def _asked(project: Project, signed: Signed) -> str:
    """Return what the console says of a person."""
    control = project.settings.control
    connection = connect(control, project.settings.control_tls, timeout_s=5.0)
    try:
        connection.request("GET", "/api/whoami", headers={"Authorization": f"Bearer {signed.token}"})
        answer = connection.getresponse()
        document = msgspec.json.decode(answer.read(1 << 20))
    except (OSError, http.client.HTTPException, msgspec.MsgspecError):
        return f"{control.url} does not answer"
    finally:
        connection.close()
    if answer.status == 200 and isinstance(document, dict):
        return f"{control.url} knows {document.get('kind')} {document.get('name')}"
    said = document.get("error") if isinstance(document, dict) else None
    return f"{control.url} answers {answer.status}: {said}"


def _renewed(project: Project, provider: Provider, kept: _Kept) -> tuple[_Kept, Identity]:
    if not kept.refresh:
        raise Denied("Your sign-in has expired.", fix=_AGAIN)
    try:
        tokens = provider.refresh(kept.refresh)
    except Denied:
        project.credentials.delete()
        raise Denied("Your sign-in has expired: the identity provider has ended it.", fix=_AGAIN) from None
    # The old refresh token may be void from now on, whatever fails below.
    kept = _save(project, msgspec.structs.replace(kept, refresh=tokens.refresh))
    if not tokens.identity:
        raise Denied("Your sign-in has expired, and the identity provider renews no ID token.", fix=_AGAIN)
    identity = provider.identify(tokens, None)
    before = parse(kept.identity).claims
    if (identity.issuer, identity.subject) != (before["iss"], before["sub"]):  # OpenID Connect Core, section 12.2
        project.credentials.delete()
        raise Denied("The identity provider answers for another person.", fix=_AGAIN)
    return _keep(project, provider, tokens), identity


def _keep(project: Project, provider: Provider, tokens: Tokens) -> _Kept:
    return _save(project, _Kept(provider.issuer.url, provider.client, tokens.identity, tokens.refresh))


def _save(project: Project, kept: _Kept) -> _Kept:
    project.credentials.save(msgspec.json.encode(kept))
    return kept


def _loaded(project: Project, provider: Provider) -> _Kept | None:
    """Return what is kept, `None` if it is of another provider or client, or cannot be read."""
    try:
        kept = msgspec.json.decode(project.credentials.load() or b"", type=_Kept)
    except msgspec.MsgspecError:
        return None
    return kept if (kept.issuer, kept.client) == (provider.issuer.url, provider.client) else None


def _provider(project: Project) -> Provider:
    provider = project.command_line_provider()
    if provider is None:
        raise Invalid(
            f"Profile {project.settings.profile!r} has no identity provider.",
            fix=f"write [profiles.{project.settings.profile}.oidc], or choose another profile.",
        )
    return provider


def _recorder(project: Project) -> Callable[[str, str, str, str], None]:
    return lambda account, action, resource, detail: audit(
        project, action, resource, detail, who=f"{Kind.USER}:{account}"
    )
