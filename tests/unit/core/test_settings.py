from pathlib import Path

import pytest

from mainspring.core.errors import Invalid
from mainspring.core.settings import Address, Url


@pytest.mark.parametrize(
    ("text", "host", "port", "url", "loopback"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, "http://127.0.0.1:8080", True),
        ("localhost:0", "localhost", 0, "http://localhost:0", True),
        ("[::1]:80", "::1", 80, "http://[::1]:80", True),
        ("0.0.0.0:65535", "0.0.0.0", 65535, "http://0.0.0.0:65535", False),
    ],
)
def test_addresses_are_read(text: str, host: str, port: int, url: str, loopback: bool) -> None:
    address = Address.parse(text)
    assert address == Address(host, port)
    assert (address.url, address.loopback) == (url, loopback)


@pytest.mark.parametrize("text", ["", "8080", ":8080", "host:", "host:x", "host:65536", "host:-1", "host:²"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="is not an address"):
        Address.parse(text)


def test_urls_name_backends() -> None:
    assert (Url("memory://").scheme, Url("sqlite:////var/x.db").scheme) == ("memory", "sqlite")
    assert Url("file:///data/lake").path == Path("/data/lake")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sqlite:////var/x.db", "sqlite:////var/x.db"),
        ("memory://", "memory://"),
        ("redis://cache:6379/0", "redis://cache:6379/0"),
        ("redis://:hush@cache:6379/0", "redis://:***@cache:6379/0"),
        ("redis://app:a%40b@[::1]:6379", "redis://app:***@[::1]:6379"),
        ("postgresql://app@db/features?sslmode=require&password=hush", "postgresql://app@db/features"),
    ],
)
def test_a_password_is_not_shown(text: str, shown: str) -> None:
    assert Url(text).shown == shown
    assert repr(Url(text)) == f"Url({shown!r})"
