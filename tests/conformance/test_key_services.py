"""Key services that are servers, against the shared suite, and where they refuse or do not answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest

from kit.object_store import ENVIRONMENT
from kit.transit_server import TOKEN, Transit, transit
from mainspring.core.errors import Corrupt, Denied, Invalid, NotFound, Unavailable
from mainspring.core.settings import Url
from mainspring.security.adapters.key_awskms import AwsKmsKeys
from mainspring.security.adapters.key_vault import VaultKeys
from mainspring.security.conformance import KeyServiceConformance
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
    many = 100  # calls each way
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
