"""Key services beyond files, against the shared suite, and where they refuse or do not answer."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import boto3
import keyring
import pkcs11
import pytest
from keyring.backends.fail import Keyring as FailingKeyring
from keyring.backends.SecretService import Keyring as SecretServiceKeyring
from pkcs11 import Attribute, KeyType, ObjectClass
from pkcs11.exceptions import AttributeSensitive

from kit.depth import deep
from kit.key_holders import LABEL, PIN, MemoryKeyring, SecretService, Token, token
from kit.object_store import ENVIRONMENT
from kit.transit_server import TOKEN, Transit, transit
from mainspring.core.errors import Corrupt, Denied, Invalid, NotFound, Unavailable
from mainspring.core.locks import FileLocks
from mainspring.core.settings import Url
from mainspring.project import open_project
from mainspring.project.settings import load_settings
from mainspring.security.adapters import key_pkcs11
from mainspring.security.adapters.key_awskms import AwsKmsKeys
from mainspring.security.adapters.key_keyring import KeyringKeys
from mainspring.security.adapters.key_pkcs11 import Pkcs11Keys
from mainspring.security.adapters.key_vault import VaultKeys
from mainspring.security.conformance import KeyServiceConformance
from mainspring.security.model import Wrapped
from mainspring.security.ports import KeyService


@pytest.fixture
def vault() -> Iterator[Transit]:
    with transit() as engine:
        yield engine


class TestVaultKeys(KeyServiceConformance):
    @pytest.fixture
    def service(self, vault: Transit) -> KeyService:
        return VaultKeys(Url(vault.url))

    def test_thousands_are_few_calls(self, service: KeyService, vault: Transit) -> None:
        service.unwrap(service.wrap([b"a" * 32] * 2_000, ["c"] * 2_000), ["c"] * 2_000)
        assert len(vault.calls) == 4

    def test_a_refused_token_is_denied_and_one_in_a_file_is_read_again(self, vault: Transit, tmp_path: Path) -> None:
        file = tmp_path / "token"
        service = VaultKeys(Url(vault.url.replace(f":{TOKEN}@", "") + f"&token_file={file}"))
        for content in (None, "hvs.other"):
            if content:
                file.write_text(content)
            with pytest.raises(Denied):
                service.wrap([b"a"], ["c"])
        file.write_text(f"{TOKEN}\n")
        assert service.wrap([b"a"], ["c"])

    def test_a_sealed_server_is_unavailable(self, service: KeyService, vault: Transit) -> None:
        vault.sealed = True
        for call in (service.version, service.describe, service.rotate, lambda: service.wrap([b"a"], ["c"])):
            with pytest.raises(Unavailable, match="sealed"):
                call()

    def test_a_key_that_authenticates_no_context_is_refused(self, service: KeyService, vault: Transit) -> None:
        vault.kind = "rsa-2048"
        with pytest.raises(Invalid, match="rsa-2048"):
            service.version()

    def test_a_key_that_is_not_there_is_said(self, vault: Transit) -> None:
        with pytest.raises(NotFound):
            VaultKeys(Url(vault.url.replace("transit/mainspring", "transit/other"))).version()

    def test_no_message_has_the_token(self, vault: Transit) -> None:
        vault.sealed = True
        with pytest.raises(Unavailable) as caught:
            VaultKeys(Url(vault.url)).version()
        assert TOKEN not in f"{caught.value!r} {caught.value}"


def test_a_server_that_hangs_or_is_not_there_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Unavailable):
            VaultKeys(Url(f"vault://127.0.0.1:{port}/transit/k?in_clear=true&timeout=50ms")).version()
    with pytest.raises(Unavailable):
        VaultKeys(Url(f"vault://127.0.0.1:{port}/transit/k?in_clear=true")).version()


class TestAwsKmsKeys(KeyServiceConformance):
    many, step = 32, 9  # calls each way
    refusals = (Corrupt, Denied)  # ciphertext that names another key is refused as if access to it were

    @pytest.fixture
    def kms(self, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        return boto3.session.Session().client("kms", region_name="eu-central-1", endpoint_url=s3_server)

    @pytest.fixture
    def alias(self, kms: Any) -> str:
        name = f"alias/{uuid4().hex}"
        kms.create_alias(AliasName=name, TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])
        return name

    @pytest.fixture
    def service(self, alias: str, s3_server: str) -> KeyService:
        return AwsKmsKeys(Url(f"awskms://eu-central-1/{alias}?endpoint={s3_server}"))

    def test_an_alias_that_moves_is_a_new_version(self, service: KeyService, alias: str, kms: Any) -> None:
        old, before = service.wrap([b"a" * 32], ["c"]), service.version()
        kms.update_alias(AliasName=alias, TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])
        new = service.wrap([b"a" * 32], ["c"])
        assert service.version() == new[0].version != before
        assert service.unwrap([*old, *new], ["c"] * 2) == [b"a" * 32] * 2

    def test_an_unknown_key_and_a_service_that_is_away_are_said(self, kms: Any, s3_server: str) -> None:
        with pytest.raises(NotFound):
            AwsKmsKeys(Url(f"awskms://eu-central-1/alias/other?endpoint={s3_server}")).version()
        with pytest.raises(Unavailable):
            AwsKmsKeys(Url("awskms://eu-central-1/alias/other?endpoint=http://127.0.0.1:1")).version()


@pytest.fixture
def token_of_softhsm(tmp_path: Path) -> Iterator[Token]:
    with token(tmp_path) as made:
        yield made


class TestPkcs11Keys(KeyServiceConformance):
    many = 500

    @pytest.fixture
    def service(self, token_of_softhsm: Token) -> KeyService:
        made = Pkcs11Keys(Url(token_of_softhsm.url))
        made.rotate()
        return made

    def test_versions_are_keys_that_the_token_does_not_give_out(
        self, service: KeyService, token_of_softhsm: Token
    ) -> None:
        service.rotate()
        found = _in_the_token(token_of_softhsm)
        assert service.version() == found[-1][Attribute.ID].hex()
        for key in found:
            assert key[Attribute.NEVER_EXTRACTABLE]
            assert key[Attribute.ALWAYS_SENSITIVE]
            with pytest.raises(AttributeSensitive):
                key[Attribute.VALUE]

    def test_a_key_that_can_be_read_is_refused(self, service: KeyService, token_of_softhsm: Token) -> None:
        session = _in_the_token(token_of_softhsm)[0].session
        session.generate_key(
            KeyType.AES, 256, label="open", store=True,
            template={Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: False},
        )  # fmt: skip
        with pytest.raises(Invalid, match="can be read out"):
            Pkcs11Keys(Url(token_of_softhsm.url.replace(f"object={LABEL}", "object=open"))).version()

    def test_another_process_sees_a_rotation_and_a_fork_goes_on(self, service: KeyService) -> None:
        wrapped = service.wrap([b"a" * 32], ["c"])
        child = os.fork()
        if not child:
            try:
                service.rotate()
                os._exit(service.unwrap(wrapped, ["c"]) != [b"a" * 32])
            except BaseException:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert service.version() != wrapped[0].version
        assert service.unwrap(wrapped, ["c"]) == [b"a" * 32]

    def test_a_fork_during_a_call_goes_on(self, service: KeyService) -> None:
        wrapped = service.wrap([b"a" * 32], ["c"])
        with key_pkcs11._calls:  # as another thread's call
            child = os.fork()
            if not child:
                signal.alarm(10)
                try:
                    os._exit(service.unwrap(wrapped, ["c"]) != [b"a" * 32])
                except BaseException:
                    os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert service.unwrap(wrapped, ["c"]) == [b"a" * 32]

    def test_an_unknown_version_does_not_end_other_sessions(self, service: KeyService, token_of_softhsm: Token) -> None:
        (wrapped,) = service.wrap([b"a" * 32], ["c"])
        session = _in_the_token(token_of_softhsm)[0].session
        with pytest.raises(Corrupt, match="no version"):
            service.unwrap([Wrapped(wrapped.content, "00")], ["c"])
        assert len(session.generate_random(64)) == 8

    @pytest.mark.parametrize("identifier", [b"\xaa" * 20, b"\x01"])
    def test_a_key_of_another_tool_is_rotated(self, token_of_softhsm: Token, identifier: bytes) -> None:
        service = Pkcs11Keys(Url(token_of_softhsm.url))
        first = service.rotate()
        template = {Attribute.EXTRACTABLE: False, Attribute.SENSITIVE: True}
        session = _in_the_token(token_of_softhsm)[0].session
        session.generate_key(KeyType.AES, 256, id=identifier, label=LABEL, store=True, template=template)
        assert service.version() == first
        assert service.rotate() == service.version() != first

    def test_after_the_greatest_identifier_there_is_none(self, service: KeyService, token_of_softhsm: Token) -> None:
        session = _in_the_token(token_of_softhsm)[0].session
        template = {Attribute.EXTRACTABLE: False, Attribute.SENSITIVE: True}
        session.generate_key(KeyType.AES, 256, id=b"\xff" * 8, label=LABEL, store=True, template=template)
        with pytest.raises(Invalid, match="greatest"):
            service.rotate()

    def test_a_token_that_is_gone_is_unavailable_and_is_used_again(
        self, service: KeyService, token_of_softhsm: Token
    ) -> None:
        wrapped, away = service.wrap([b"a" * 32], ["c"]), token_of_softhsm.folder.with_name("away")
        token_of_softhsm.folder.rename(away)
        for call in (
            service.version, service.describe, service.rotate,
            lambda: service.wrap([b"a"], ["c"]), lambda: service.unwrap(wrapped, ["c"]),
        ):  # fmt: skip
            with pytest.raises(Unavailable):
                call()
        away.rename(token_of_softhsm.folder)
        assert service.unwrap(wrapped, ["c"]) == [b"a" * 32]

    def test_a_refused_pin_is_tried_once_and_a_new_one_is_read(self, token_of_softhsm: Token) -> None:
        service = Pkcs11Keys(Url(token_of_softhsm.url))
        token_of_softhsm.pin.write_text("nothing like it")
        for said in ("PinIncorrect", "not tried again", "not tried again"):
            with pytest.raises(Denied, match=said) as caught:
                service.rotate()
            assert "nothing like it" not in f"{caught.value!r} {caught.value}"
        token_of_softhsm.pin.write_text(PIN)
        assert service.rotate() == service.version()

    def test_a_pin_that_others_can_read_is_refused(self, token_of_softhsm: Token) -> None:
        token_of_softhsm.pin.chmod(0o644)
        with pytest.raises(Invalid, match="chmod 600"):
            Pkcs11Keys(Url(token_of_softhsm.url)).version()

    def test_a_pin_in_the_address_is_shown_nowhere(self, token_of_softhsm: Token) -> None:
        at = Url(token_of_softhsm.url.partition("&")[0] + f"&pin-value={quote(PIN)}")
        service = Pkcs11Keys(at)
        with pytest.raises(NotFound, match="has no version yet") as caught:
            service.version()
        assert service.rotate() == service.version()
        for text in (repr(at), at.shown, service.describe(), str(caught.value)):
            assert PIN not in text
            assert quote(PIN) not in text

    def test_a_token_or_module_that_is_not_there_is_said(self, token_of_softhsm: Token) -> None:
        for old, new in (("our%20token", "other"), (token_of_softhsm.module, "/nowhere.so")):
            with pytest.raises(Unavailable):
                Pkcs11Keys(Url(token_of_softhsm.url.replace(old, new))).version()


def _in_the_token(of: Token) -> list[Any]:
    """Return the versions, oldest first; the process is logged in."""
    session = pkcs11.lib(of.module).get_token(token_label="our token").open(rw=True)
    found = session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: LABEL})
    return sorted(found, key=lambda key: key[Attribute.ID])


@pytest.mark.parametrize(
    "address",
    ["", "token=t;object=o", "token=t?module-path=/m", "token=t;object=o;x=1?module-path=/m",
     "token=t;object=o?module-path=/m&pin=1"],
)  # fmt: skip
def test_an_address_that_names_no_key_in_a_token_is_refused(address: str) -> None:
    with pytest.raises(Invalid):
        Pkcs11Keys(Url(f"pkcs11:{address}"))


@pytest.fixture
def secret_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SecretService]:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "")
    made = SecretService(tmp_path)
    made.start()
    before = keyring.get_keyring()
    keyring.set_keyring(SecretServiceKeyring())
    yield made
    keyring.set_keyring(before)
    made.close()


class TestKeyringKeys(KeyServiceConformance):
    @pytest.fixture
    def service(self, tmp_path: Path) -> KeyService:
        return _in_the_keyring(tmp_path, MemoryKeyring())

    def test_what_is_no_key_in_it_is_said(self, tmp_path: Path) -> None:
        held = MemoryKeyring()
        held.set_password("mainspring", "shop master key 1", "c2hvcnQ=")
        with pytest.raises(Corrupt, match="not one of 32 bytes"):
            _in_the_keyring(tmp_path, held).wrap([b"a"], ["c"])


def test_projects_that_name_the_same_entry_make_its_first_key_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(MemoryKeyring):
        def get_password(self, service: str, name: str) -> str | None:
            found = super().get_password(service, name)
            time.sleep(0.05)
            return found

    monkeypatch.setitem(sys.modules, "keyring", Slow())
    monkeypatch.setenv("HOME", str(tmp_path))
    services = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mainspring.toml").write_text(f'name = "{name}"\nmodules = []\n')
        settings = load_settings(tmp_path / name, overrides={"encryption": "keyring:team"}, environment={})
        services.append(open_project(settings).key_service)
    with ThreadPoolExecutor(2) as threads:
        wrapped = list(threads.map(lambda service: service.wrap([b"a" * 32], ["c"]), services))
    assert [service.unwrap(each, ["c"]) for service in services for each in wrapped] == [[b"a" * 32]] * 4


class TestKeysInSecretService(KeyServiceConformance):
    step = 9
    pytestmark = deep

    @pytest.fixture
    def service(self, secret_service: SecretService, tmp_path: Path) -> KeyService:
        return _in_the_keyring(tmp_path)

    def test_of_processes_that_make_the_first_key_at_once_one_does(self, service: KeyService, tmp_path: Path) -> None:
        with ThreadPoolExecutor(4) as threads:
            wrapped = list(threads.map(lambda _: _in_the_keyring(tmp_path).wrap([b"a" * 32], ["c"]), range(4)))
        assert [service.unwrap(each, ["c"]) for each in wrapped] == [[b"a" * 32]] * 4


def test_a_secret_service_keeps_the_keys_and_takes_them_away_with_it(
    secret_service: SecretService, tmp_path: Path
) -> None:
    service = _in_the_keyring(tmp_path)
    wrapped = service.wrap([b"a" * 32], ["c"])
    secret_service.stop()
    for call in (service.version, service.describe, service.rotate, lambda: service.unwrap(wrapped, ["c"])):
        with pytest.raises(Unavailable):
            call()
    secret_service.start()
    assert _in_the_keyring(tmp_path).unwrap(wrapped, ["c"]) == [b"a" * 32]


def _in_the_keyring(folder: Path, held: Any = keyring) -> KeyringKeys:
    locks = FileLocks(folder / "locks")
    return KeyringKeys(held, "shop", lambda: locks.hold("keyring"))


def test_without_a_keyring_it_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring.core, "_keyring_backend", FailingKeyring())
    with pytest.raises(Unavailable):
        _in_the_keyring(tmp_path).version()


@pytest.mark.parametrize("address", ["awskms://eu-central-1", "awskms://eu-central-1/k?x=1", "awskms:///alias/k"])
def test_an_address_that_names_no_key_of_kms_is_refused(address: str) -> None:
    with pytest.raises(Invalid):
        AwsKmsKeys(Url(address))


@pytest.mark.parametrize(
    "address",
    ["vault://host", "vault://host/transit", "vault:///transit/key", "vault://host/transit/key?tls=no"],
)
def test_an_address_that_names_no_key_is_refused(address: str) -> None:
    with pytest.raises(Invalid):
        VaultKeys(Url(address))


def test_the_suite_needs_what_it_asks_for(vault: Transit) -> None:
    class Unbound(VaultKeys):
        """Leaves the context out, as an adapter might."""

        def wrap(self, keys, contexts):
            return super().wrap(keys, [""] * len(contexts))

        def unwrap(self, wrapped, contexts):
            return super().unwrap(wrapped, [""] * len(contexts))

    with pytest.raises(AssertionError):
        KeyServiceConformance().test_another_context_opens_nothing(Unbound(Url(vault.url)))
