"""Tokens are verified as RFC 8725 says. The signatures of these tests are made by `cryptography` alone."""

from __future__ import annotations

import base64
import json
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from kit.identity_provider import SigningKey, b64, b64_json
from mainspring.core.errors import Denied, Invalid
from mainspring.core.time import SECOND
from mainspring.security.tokens import (
    LEEWAY_US,
    NotAccepted,
    check_claims,
    check_identity,
    key_of,
    parse,
    read_keys,
    verified,
)

NOW_S = 1_800_000_000
CLAIMS = {"iss": "https://id.example.org", "aud": "mainspring", "sub": "ana", "exp": NOW_S + 60, "iat": NOW_S}
KEYS = {algorithm: SigningKey(algorithm, algorithm) for algorithm in ("RS256", "PS256", "ES256", "EdDSA")}
SET = read_keys({"keys": [key.jwk() for key in KEYS.values()]})


def claims_of(token: str) -> dict:
    return dict(verified(parse(token), SET))


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_signature_of_each_allowed_algorithm_is_accepted_and_a_changed_one_is_not(algorithm) -> None:
    token = KEYS[algorithm].token(CLAIMS)
    assert claims_of(token) == CLAIMS
    head, body, signature = token.split(".")
    other = KEYS[algorithm].token({**CLAIMS, "sub": "ben"}).split(".")
    for changed in (f"{head}.{other[1]}.{signature}", f"{head}.{body}.{other[2]}"):
        with pytest.raises(NotAccepted, match="signature is wrong"):
            claims_of(changed)


def test_the_name_of_rfc_9864_is_the_same_algorithm() -> None:
    assert claims_of(KEYS["EdDSA"].token(CLAIMS, alg="Ed25519")) == CLAIMS


@pytest.mark.parametrize("bits", range(8))
def test_no_bit_of_a_signature_can_change(bits) -> None:
    head, body, signature = KEYS["ES256"].token(CLAIMS).split(".")
    content = bytearray(base64.urlsafe_b64decode(signature + "=="))
    for at in range(0, len(content), 9):
        changed = content.copy()
        changed[at] ^= 1 << bits
        with pytest.raises(NotAccepted):
            claims_of(f"{head}.{body}.{b64(bytes(changed))}")


def test_a_second_spelling_of_the_same_bytes_is_refused() -> None:
    token = KEYS["ES256"].token(CLAIMS)  # 64 bytes: the last character has four unused bits
    assert token[-1] in "AQgw"
    with pytest.raises(NotAccepted, match="base64url"):
        parse(token[:-1] + chr(ord(token[-1]) + 1))


def test_a_key_is_used_for_its_own_algorithm_alone() -> None:
    for kid, alg in (("RS256", "ES256"), ("ES256", "EdDSA"), ("EdDSA", "RS256"), ("RS256", "Ed25519")):
        with pytest.raises(NotAccepted, match="no key of that name"):
            claims_of(KEYS[kid].token(CLAIMS, alg=alg))
    only = read_keys({"keys": [KEYS["RS256"].jwk(alg="RS256")]})
    with pytest.raises(NotAccepted, match="no key of that name"):
        verified(parse(KEYS["RS256"].token(CLAIMS, alg="PS256")), only)


def test_a_key_is_found_by_its_name_and_without_a_name_only_if_there_is_one() -> None:
    with pytest.raises(NotAccepted, match="no key of that name"):
        claims_of(KEYS["ES256"].token(CLAIMS, kid="another"))
    assert claims_of(KEYS["ES256"].token(CLAIMS, kid=None)) == CLAIMS
    two = read_keys({"keys": [SigningKey("ES256", name).jwk() for name in ("a", "b")]})
    assert key_of(parse(KEYS["ES256"].token(CLAIMS, kid=None)), two) is None
    same = read_keys({"keys": [SigningKey("ES256", "ES256").jwk(), KEYS["ES256"].jwk()]})
    assert key_of(parse(KEYS["ES256"].token(CLAIMS)), same) is None, "which of the two is not for the token to try"


def test_keys_that_cannot_verify_here_are_left_out() -> None:
    good = KEYS["ES256"].jwk()
    bad = [
        {**good, "use": "enc"},
        {**good, "key_ops": ["sign"]},
        {**good, "x": good["y"]},  # not on the curve
        {**good, "x": 3},
        {**good, "kid": 3},
        {**good, "crv": "P-999"},
        {"kty": "oct", "k": b64(b"secret" * 8), "kid": "x"},
        {"kty": "XYZ"},
        {"kty": ["RSA"]},
        {},
        "key",
        SigningKey("RS256", "small", bits=1024).jwk(),
        {**KEYS["RS256"].jwk(), "e": "AA"},
    ]
    assert [key.kid for key in read_keys({"keys": [*bad, good]})] == ["ES256"]
    p384 = SigningKey("ES256", "ES256", curve=ec.SECP384R1())
    assert key_of(parse(KEYS["ES256"].token(CLAIMS)), read_keys({"keys": [p384.jwk()]})) is None
    for no_set in (None, [], {}, {"keys": {}}, {"keys": [good] * 65}):
        with pytest.raises(Invalid, match="JWK set"):
            read_keys(no_set)


def test_only_the_public_part_of_a_key_is_read() -> None:
    (key,) = read_keys({"keys": [{**KEYS["ES256"].jwk(), "d": b64(bytes(31) + b"\1")}]})
    assert not key.key.is_private


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"iss": "https://id.example.org/"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"iss": ["https://id.example.org"]}, "another issuer"),
        ({"aud": "other"}, "another audience"),
        ({"aud": []}, "another audience"),
        ({"aud": None}, "audience is malformed"),
        ({"aud": {"mainspring": 1}}, "audience is malformed"),
        ({"aud": ["mainspring", 3]}, "audience is malformed"),
        ({"exp": NOW_S - 30}, "expired"),
        ({"exp": None}, "no expiry"),
        ({"exp": str(NOW_S + 60)}, "not an instant"),
        ({"exp": True}, "not an instant"),
        ({"exp": 1e300}, "not an instant"),
        ({"exp": -1}, "not an instant"),
        ({"nbf": NOW_S + 31}, "not valid yet"),
        ({"iat": NOW_S + 31}, "not valid yet"),
        ({"sub": ""}, "no subject"),
        ({"sub": "a" * 256}, "no subject"),
        ({"sub": "a\nb"}, "no subject"),
        ({"sub": "\ud800"}, "no subject"),
        ({"sub": 7}, "no subject"),
    ],
)
def test_each_claim_is_checked(change, reason) -> None:
    with pytest.raises(NotAccepted, match=reason):
        check({**CLAIMS, **change})


def check(claims: dict) -> str:
    return check_claims(claims, issuer=CLAIMS["iss"], audiences={"mainspring"}, now=NOW_S * SECOND)


def test_clocks_may_differ_by_half_a_minute() -> None:
    edge = LEEWAY_US // SECOND
    assert check({**CLAIMS, "exp": NOW_S - edge + 1}) == "ana"
    assert check({**CLAIMS, "exp": NOW_S - edge + 0.5, "nbf": NOW_S + edge, "iat": NOW_S + edge}) == "ana"
    assert check({**CLAIMS, "aud": ["other", "mainspring"]}) == "ana"


@pytest.mark.parametrize(
    ("change", "header", "reason"),
    [
        ({"nonce": "other"}, {}, "another log-in"),
        ({"nonce": None}, {}, "another log-in"),
        ({"nonce": "\ud800"}, {}, "another log-in"),
        ({"azp": "other"}, {}, "another client"),
        ({"aud": ["mainspring", "api"]}, {}, "another client"),
        ({"aud": ["mainspring", "stranger"], "azp": "mainspring"}, {}, "another audience"),
        ({"aud": "api"}, {}, "another audience"),
        ({"at_hash": "x" * 22}, {}, "access token"),
        ({"at_hash": 3}, {}, "access token"),
        ({"iat": None}, {}, "when it was issued"),
        ({}, {"typ": "at+jwt"}, "not an ID token"),
        ({}, {"typ": "application/logout+jwt"}, "not an ID token"),
    ],
)
def test_an_id_token_belongs_to_one_log_in_of_one_client(change, header, reason) -> None:
    with pytest.raises(NotAccepted, match=reason):
        identity({**CLAIMS, "nonce": "n", **change}, **header)


def identity(claims: dict, **header) -> None:
    token = parse(KEYS["RS256"].token(claims, **header))
    check_identity(token, claims, client="mainspring", trusted=["api"], nonce="n", access="the access token")


def test_an_id_token_with_all_of_it_is_accepted() -> None:
    identity({**CLAIMS, "nonce": "n", "aud": ["mainspring", "api"], "azp": "mainspring"}, typ=None)
    # The example of OpenID Connect Core 1.0, appendix A.3.
    access, half = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y", "77QmUPtjPfzWtF2AnpK9RQ"
    token = parse(KEYS["RS256"].token({**CLAIMS, "nonce": "n", "at_hash": half}))
    check_identity(token, token.claims, client="mainspring", trusted=[], nonce="n", access=access)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=8), each, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["alg", "kid", "typ", "crit", "iss", "aud", "exp", "nbf", "iat", "sub", "azp", "nonce", "x"])
VALUES = JSON | st.sampled_from([*CLAIMS.values(), "none", "HS256", "ES256", "RS256", "mainspring"])
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=8)


@given(header=OBJECTS | JSON, claims=OBJECTS | JSON, signature=st.binary(min_size=1, max_size=80))
def test_whatever_is_signed_by_nobody_is_denied(header, claims, signature) -> None:
    text = f"{b64_json(json.dumps(header))}.{b64_json(json.dumps(claims))}.{b64(signature)}"
    with pytest.raises(Denied):
        claims_of(text)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda content: content.decode("latin-1")))
def test_any_text_that_is_no_token_is_denied(text) -> None:
    with pytest.raises(Denied):
        parse(text)


@given(OBJECTS)
def test_any_claims_are_checked_or_denied(claims) -> None:
    try:
        subject = check(claims)
    except Denied:
        return
    assert claims["iss"] == CLAIMS["iss"]
    assert claims["sub"] == subject


@given(JSON | st.fixed_dictionaries({"keys": st.lists(JSON | st.fixed_dictionaries({
    "kty": st.sampled_from(["RSA", "EC", "OKP", "oct"]), "crv": st.sampled_from(["P-256", "Ed25519", "X25519", 3]),
    "n": JSON, "e": JSON, "x": JSON, "y": JSON,
}), max_size=3)}))  # fmt: skip
def test_any_document_is_a_key_set_or_refused(document) -> None:
    with suppress(Invalid):
        read_keys(document)
