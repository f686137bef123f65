import pytest

from mainspring.core.errors import WrongHost
from mainspring.core.settings import Address
from mainspring.security.hosts import allowed_hosts, check_host, check_origin


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8081", "localhost:1", "LOCALHOST", "[::1]:8081", "ml.example.org", "ML.example.org:443"],
)
def test_own_names_are_answered_on_any_port(host) -> None:
    check_host(host, allowed_hosts(Address("127.0.0.1", 8081), ["ML.Example.org"]))


def test_listening_everywhere_adds_no_name() -> None:
    assert allowed_hosts(Address("0.0.0.0", 80)) == allowed_hosts(Address("127.0.0.1", 80))
    assert "10.0.0.7" in allowed_hosts(Address("10.0.0.7", 80))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "localhost:8081"),
        ("http://localhost:8081", "localhost:8081"),
        ("http://LOCALHOST:8081", "localhost:8081"),
        ("http://[::1]:8081", "[::1]:8081"),
        ("https://ml.example.org", "ml.example.org"),
        ("https://ml.example.org", "ml.example.org:443"),
        ("http://ml.example.org:80", "ml.example.org"),
    ],
)
def test_own_pages_may_send(origin, host) -> None:
    check_origin(origin, host)


@pytest.mark.parametrize("host", ["ml.example.org:443", "[fe80::1]:8081", "ML.example.org:443"])
def test_a_name_with_a_port_stands_for_that_port(host) -> None:
    allowed = allowed_hosts(Address("127.0.0.1", 8081), ["ml.example.org:443", "[fe80::1]:8081"])
    check_host(host, allowed)
    for other in ("ml.example.org", "ml.example.org:80", "[fe80::1]", "[fe80::1]:80"):
        with pytest.raises(WrongHost):
            check_host(other, allowed)
