"""Everything that security must refuse, as calls, so that the same list runs with and without `python -O`.

Run as a program it tries each and exits with 1 if one went through: no `assert`, which -O would remove.
"""

import hmac
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

sys.path.insert(0, str(Path(__file__).parents[1]))  # where it runs as a program

from kit.identity_provider import IdentityProvider, SigningKey, asked_of, b64, b64_json, in_json
from mainspring.core.errors import Corrupt, Denied, Invalid, MainspringError
from mainspring.core.settings import Address, TrustedIssuer
from mainspring.core.time import DAY, ManualClock, SystemClock
from mainspring.project.catalog import memory_catalog
from mainspring.security import hosts, secrets
from mainspring.security.adapters.catalog import CatalogEndedSessions, CatalogKeyStore
from mainspring.security.issuers import Issuer
from mainspring.security.keys import Authenticator, issue
from mainspring.security.model import EVERY_ROLE, PROJECT, Action, KeyScope, Principal
from mainspring.security.policy import CedarAuthoriser
from mainspring.security.sessions import Sessions
from mainspring.security.signing import SigningKey as OwnKey
from mainspring.security.signing import verify
from mainspring.security.tokens import parse, read_keys, verified

Refusal = tuple[str, type[Exception], Callable[[], object]]
PEPPER = bytes(range(32))


def keys() -> Iterator[Refusal]:
    clock, store = ManualClock(1_000), CatalogKeyStore(memory_catalog())

    def key(lifetime_us: int = DAY, scopes=(KeyScope.VIEW,), name="ana", pepper=PEPPER):
        return issue(store, name=name, scopes=scopes, lifetime_us=lifetime_us, clock=clock, pepper=pepper)

    good, revoked, foreign = key(), key(), key(pepper=bytes(32))
    store.revoke(revoked.split("_")[1], clock.now())
    check = Authenticator(store, PEPPER, clock)
    elsewhere = issue(
        CatalogKeyStore(memory_catalog()), name="x", scopes=[KeyScope.VIEW], lifetime_us=DAY, clock=clock, pepper=PEPPER
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
    for scope, action in (
        (KeyScope.PREDICT, Action.ENDPOINT_PREDICT),
        (KeyScope.VIEW, Action.MODEL_READ),
        (KeyScope.SCRAPE, Action.METRICS_SCRAPE),
        (KeyScope.ANCHOR, Action.AUDIT_ANCHOR),
        (KeyScope.MANAGE, Action.KEYS_MANAGE),
    ):
        others = Principal("id", "name", frozenset(KeyScope) - {scope}, roles=EVERY_ROLE)
        for _ in range(2):  # decided, and remembered
            yield (
                f"policy: {action} without its scope",
                Denied,
                lambda p=others, a=action: authoriser.check(p, a, PROJECT),
            )


def signatures() -> Iterator[Refusal]:
    ours, other = OwnKey(bytes(32)), OwnKey(bytes(range(32)))
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


def tokens() -> Iterator[Refusal]:
    """A token of an identity provider that is not what its signature, its header or its text says."""
    rsa, curve, thief = SigningKey("RS256", "rsa"), SigningKey("ES256", "curve"), SigningKey("ES256", "thief")
    trusted = read_keys({"keys": [rsa.jwk(), curve.jwk(), {"kty": "oct", "kid": "mac", "k": b64(b"k" * 32)}]})
    claims = {"iss": "https://id.example.org", "aud": "mainspring", "sub": "ana", "exp": 4_000_000_000}
    if verified(parse(curve.token(claims)), trusted) != claims:
        raise RuntimeError("a good token is refused")

    def mac(secret: bytes, **header: str) -> str:
        signed = f"{b64_json({'alg': 'HS256', **header})}.{b64_json(claims)}"
        return f"{signed}.{b64(hmac.digest(secret, signed.encode(), 'sha256'))}"

    public = rsa.private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    twice = '{"alg":"none","alg":"ES256","kid":"curve"}'
    good, head, body = curve.token(claims), b64_json({"alg": "none"}), b64_json(claims)
    texts = {
        "none, without a signature": f"{head}.{body}.",
        "none, with one": f"{head}.{body}.{b64(b'x')}",
        "None": f"{b64_json({'alg': 'None'})}.{body}.{b64(b'x')}",
        "none, with a known key": curve.token(claims, alg="none"),
        "the public key as a secret (PEM)": mac(pem, kid="rsa"),
        "the public key as a secret (DER)": mac(der, kid="rsa"),
        "the JWK as a secret": mac(json.dumps(rsa.jwk()).encode(), kid="rsa"),
        "a secret that the set has": mac(b"k" * 32, kid="mac"),
        "an empty secret": mac(b"", kid="curve"),
        "another algorithm of the same key": rsa.token(claims, alg="RS512"),
        "another type of key": curve.token(claims, alg="RS256", kid="rsa"),
        "an unknown key": thief.token(claims),
        "an unknown key under a known name": thief.token(claims, kid="curve"),
        "an unknown key without a name": thief.token(claims, kid=None),
        "a name that is a path": thief.token(claims, kid="../../dev/null"),
        "a name that is no text": curve.token(claims, kid=["curve"]),
        "its own key": thief.token(claims, jwk=thief.jwk()),
        "its own key under a known name": thief.token(claims, kid="curve", jwk=thief.jwk()),
        "its own address": thief.token(claims, jku="https://evil.example/keys"),
        "its own certificate": thief.token(claims, kid="curve", x5u="https://evil.example", x5c=["AA=="]),
        "crit": curve.token(claims, crit=["exp"], exp=1),
        "an unencoded body": curve.token(claims, b64=False),
        "alg twice": f"{b64_json(twice)}.{good.split('.', 1)[1]}",
        "a claim twice": curve.token('{"sub":"ana","sub":"ben","iss":"https://id.example.org"}'),
        "NaN": curve.token('{"exp":NaN}'),
        "claims that are a list": curve.token("[]"),
        "no JSON": curve.token("{"),
        "very deep": curve.token("[" * 3000 + "]" * 3000),
        "five parts": f"{good}.{good}",
        "padding": f"{good}=",
        "a line feed": f"{good}\n",
        "blanks": f" {good}",
        "no signature": good.rpartition(".")[0] + ".",
        "a zero signature": f"{good.rpartition('.')[0]}.{b64(bytes(64))}",
        "half a signature": f"{good.rpartition('.')[0]}.{good.rpartition('.')[2][:43]}",
        "too long": curve.token({**claims, "x": "x" * 16_384}),
        "an encrypted token": ".".join([b64_json({"alg": "RSA-OAEP", "enc": "A256GCM"}), *"abcd"]),
    }
    for name, text in texts.items():
        yield f"token: {name}", Denied, lambda text=text: verified(parse(text), trusted)


def issuers() -> Iterator[Refusal]:
    """An issuer that is not who it should be, or sends what no provider does."""
    here = IdentityProvider()
    here.url = "http://127.0.0.1:5556"

    def seen(change: Callable[[IdentityProvider], object], **settings) -> Callable[[], object]:
        provider = IdentityProvider(here.keys)
        provider.url = here.url
        change(provider)
        issuer = Issuer(TrustedIssuer(here.url, ("mainspring",), **settings), SystemClock(), ask=asked_of(provider))
        return lambda: issuer.waited(parse(provider.keys[0].token(provider.claims())))

    if seen(lambda _: None)()["sub"] != "ana":
        raise RuntimeError("a good issuer is refused")

    def document(**changed) -> Callable[[IdentityProvider], object]:
        def change(provider: IdentityProvider) -> None:
            whole = {**provider.document(), **changed}
            provider.answers["/.well-known/openid-configuration"] = lambda: in_json(whole)

        return change

    def keys_are(status: int, content: bytes, **headers: str) -> Callable[[IdentityProvider], object]:
        return lambda provider: provider.answers.update({"/keys": lambda: (status, headers, content)})

    hostile = {
        "another issuer": document(issuer="http://127.0.0.1:5557"),
        "no issuer": document(issuer=None),
        "keys elsewhere": document(jwks_uri="https://evil.example/keys"),
        "keys on a host that begins alike": document(jwks_uri="http://127.0.0.1.evil.example/keys"),
        "keys behind a name and an @": document(jwks_uri="http://127.0.0.1@evil.example/keys"),
        "keys in a file": document(jwks_uri="file:///etc/passwd"),
        "keys that are a number": document(jwks_uri=7),
        "an endpoint in clear": document(token_endpoint="http://evil.example/token"),
        "an endpoint that is a script": document(authorization_endpoint="javascript:alert(1)"),
        "no keys": keys_are(200, b'{"keys":[]}'),
        "keys that are HTML": keys_are(200, b"<html>"),
        "keys that are deep": keys_are(200, b"[" * 100_000),
        "an error": keys_are(500, b"{}"),
        "a redirect": keys_are(302, b"{}", Location="https://evil.example/keys"),
        "too much": keys_are(200, b'{"keys":[' + b" " * 300_000 + b"]}"),
    }
    for name, change in hostile.items():
        yield f"issuer: {name}", MainspringError, seen(change)
    yield "issuer: a key file that is not there", MainspringError, seen(lambda _: None, keys=Path("/nowhere"))
    for url in (
        "",
        "id.example.org",
        "http://id.example.org",
        "ftp://id.example.org",
        "https://a:b@id.example.org",
        "https://",
        "https://id.example.org#x",
        "https://id.example.org:99999",
        "https://id.example.org/\n",
    ):
        yield f"issuer: {url!r}", Invalid, lambda url=url: hosts.check_address(url, "The issuer")


def refusals() -> list[Refusal]:
    return [*keys(), *policies(), *signatures(), *files(), *names(), *browser(), *tokens(), *issuers()]


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
