"""Everything that security must refuse, as calls, so that the same list runs with and without `python -O`.

Run as a program it tries each and exits with 1 if one went through: no `assert`, which -O would remove.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from mainspring.core.errors import Corrupt, Denied, Invalid
from mainspring.core.settings import Address
from mainspring.core.time import DAY, ManualClock
from mainspring.project.catalog import memory_catalog
from mainspring.security import hosts, secrets
from mainspring.security.adapters.catalog import CatalogEndedSessions, CatalogKeyStore
from mainspring.security.keys import Authenticator, issue
from mainspring.security.model import Action, Principal
from mainspring.security.policy import CedarAuthoriser
from mainspring.security.sessions import Sessions
from mainspring.security.signing import SigningKey, verify

Refusal = tuple[str, type[Exception], Callable[[], object]]
PEPPER = bytes(range(32))


def keys() -> Iterator[Refusal]:
    clock, store = ManualClock(1_000), CatalogKeyStore(memory_catalog())

    def key(lifetime_us: int = DAY, scopes=(Action.VIEW,), name="ana", pepper=PEPPER):
        return issue(store, name=name, scopes=scopes, lifetime_us=lifetime_us, clock=clock, pepper=pepper)

    good, revoked, foreign = key(), key(), key(pepper=bytes(32))
    store.revoke(revoked.split("_")[1], clock.now())
    check = Authenticator(store, PEPPER, clock)
    elsewhere = issue(
        CatalogKeyStore(memory_catalog()), name="x", scopes=[Action.VIEW], lifetime_us=DAY, clock=clock, pepper=PEPPER
    )
    headers = {
        "no header": None,
        "an empty header": "",
        "no scheme": good,
        "basic": f"Basic {good}",
        "an empty token": "Bearer ",
        "another secret": f"Bearer {_with_checksum(good[:-9] + ('a' if good[-9] != 'a' else 'b'))}",
        "a broken checksum": f"Bearer {good[:-1]}{'0' if good[-1] != '0' else '1'}",
        "cut off": f"Bearer {good[:-8]}",
        "something after it": f"Bearer {good}0",
        "not ASCII": "Bearer mspé_x",
        "digits of another script": f"Bearer {good[:-1]}٣",
        "a revoked key": f"Bearer {revoked}",
        "another installation's pepper": f"Bearer {foreign}",
        "a key that was never stored": f"Bearer {elsewhere}",
    }
    for name, header in headers.items():
        yield f"key: {name}", Denied, lambda header=header: check.authenticate(header)

    short = key(lifetime_us=10)
    later = Authenticator(store, PEPPER, ManualClock(1_010))
    yield "key: expired at its last instant", Denied, lambda: later.authenticate(f"Bearer {short}")
    yield "key: unknown id of a session", Denied, lambda: check.principal("nobody")
    yield "key: revoked id of a session", Denied, lambda: check.principal(revoked.split("_")[1])
    yield "issue: no scope", Invalid, lambda: key(scopes=())
    yield "issue: unknown scope", ValueError, lambda: key(scopes=("root",))
    yield "issue: no lifetime", Invalid, lambda: key(lifetime_us=0)
    yield "issue: no name", Invalid, lambda: key(name="  ")
    yield "issue: a name with a line break", Invalid, lambda: key(name="ana\nadmin")


def _with_checksum(body: str) -> str:
    import zlib

    return f"{body}{zlib.crc32(body.encode()):08x}"


def policies() -> Iterator[Refusal]:
    authoriser = CedarAuthoriser()
    for action in Action:
        others = Principal("id", "name", frozenset(Action) - {action})
        for _ in range(2):  # decided, and remembered
            yield (
                f"policy: {action} without its scope",
                Denied,
                lambda p=others, a=action: authoriser.check(p, a, "x/y"),
            )


def signatures() -> Iterator[Refusal]:
    ours, other = SigningKey(bytes(32)), SigningKey(bytes(range(32)))
    signature = ours.sign(b"content")
    yield "signature: other content", Corrupt, lambda: verify(ours.public, signature, b"Content")
    yield "signature: other key", Corrupt, lambda: verify(other.public, signature, b"content")
    yield "signature: empty", Corrupt, lambda: verify(ours.public, b"", b"content")
    yield "signature: a key that is none", Corrupt, lambda: verify(b"short", signature, b"content")


def files() -> Iterator[Refusal]:
    folder = Path(tempfile.mkdtemp())
    (folder / "open").write_bytes(bytes(32))
    (folder / "open").chmod(0o644)
    (folder / "short").touch(mode=0o600)
    yield "secret: readable by others", Invalid, lambda: secrets.load_or_create(folder / "open")
    yield "secret: empty", Corrupt, lambda: secrets.load_or_create(folder / "short")


def names() -> Iterator[Refusal]:
    allowed = hosts.allowed_hosts(Address("127.0.0.1", 8081), ["ml.example.org"])
    hostile = (
        None,
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example:8081",
        "evil.example:8081",
        "localhost:8081, evil.example",
        "localhost@evil.example",
        "localhost/",
        "localhost:",
        "[::2]",
        "0.0.0.0",
        " localhost",
    )
    for host in hostile:
        yield f"host: {host!r}", Denied, lambda host=host: hosts.check_host(host, allowed)
    for origin in (
        "null",
        "",
        "http://evil.example",
        "http://localhost:3000",
        "http://localhost",
        "https://localhost:99999",
        "file://localhost:8081",
        "http://localhost:8081.evil.example",
        "http://localhost:8081@evil.example",
    ):
        yield f"origin: {origin!r}", Denied, lambda o=origin: hosts.check_origin(o, "localhost:8081")


def browser() -> Iterator[Refusal]:
    clock = ManualClock(0)
    sessions = Sessions(b"secret", clock, CatalogEndedSessions(memory_catalog()))
    session = sessions.read(sessions.open(Principal("ana", "Ana", frozenset())))
    if session is None:
        raise RuntimeError("a fresh session cannot be read")
    other = replace(session, id="other")
    yield "csrf: none", Denied, lambda: sessions.check_csrf(session, None)
    yield "csrf: empty", Denied, lambda: sessions.check_csrf(session, "")
    yield "csrf: not ASCII", Denied, lambda: sessions.check_csrf(session, "é")
    yield "csrf: of another session", Denied, lambda: sessions.check_csrf(session, sessions.csrf(other))


def refusals() -> list[Refusal]:
    return [*keys(), *policies(), *signatures(), *files(), *names(), *browser()]


def accepted() -> list[str]:
    """Return the names of the refusals that did not happen."""
    wrong = []
    for name, kind, call in refusals():
        try:
            call()
        except kind:
            continue
        wrong.append(name)
    return wrong


if __name__ == "__main__":
    found = accepted()
    print(f"{len(refusals())} refusals tried, optimised: {sys.flags.optimize}")
    sys.exit("\n".join(found) if found else 0)
