"""Addresses of the servers that a profile names, for rules of networks that open them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from urllib.parse import parse_qs, urlsplit

from mainspring.core.settings import Settings, Url

_PORTS: Mapping[str, int] = {
    "postgres": 5432,
    "postgresql": 5432,
    "redis": 6379,
    "rediss": 6379,
    "valkey": 6379,
    "valkeys": 6379,
    "milvus": 19530,
    "kafka": 9092,
    "nats": 4222,
    "mqtt": 1883,
    "mqtts": 8883,
    "vault": 8200,
    "http": 80,
    "https": 443,
}
_BUCKETS = (
    "s3", "gs", "az", "kinesis", "awskms", "dynamodb", "bigtable", "snowflake", "bigquery",
)  # fmt: skip  # whose host is a name of theirs
_ANYWHERE = "any"
# Servers whose address only the place knows: the ports that these usually have.
_USUAL: Mapping[str, tuple[int, ...]] = {
    "MAINSPRING_CATALOG": (5432,),
    "MAINSPRING_TRACKING": (5432,),
    "MAINSPRING_VECTORS": (5432,),
    "MAINSPRING_ONLINE": (5432, 6379),
    "MAINSPRING_STREAMS": (4222, 9092),
    "MAINSPRING_LAKE": (443,),
    "MAINSPRING_BLOBS": (443,),
    "MAINSPRING_WAREHOUSE_URL": (443,),
}


def servers(settings: Settings, elsewhere: Collection[str] = ()) -> list[str]:
    """Return `HOST:PORT` of each server, ascending; `any:PORT` where the host is not known.

    Args:
        elsewhere: Variables whose values the place gives.
    """
    found = {each for url in _urls(settings) for each in _address(url)}
    found |= {f"{_ANYWHERE}:{port}" for name in elsewhere for port in _USUAL.get(name, ())}
    return sorted(found)


def _urls(settings: Settings) -> Iterator[str]:
    for name in settings.__slots__:
        value = getattr(settings, name)
        if isinstance(value, Url):
            yield value.text
    yield from (each.text for each in settings.audit_anchors)
    yield from (each.url for each in settings.receivers.values())
    yield from (each.url for each in settings.upstreams.values())
    if settings.warehouse is not None:
        yield settings.warehouse.url.text
    if settings.sign_in is not None:
        yield settings.sign_in.issuer.url
    yield settings.metrics
    if settings.traces is not None:
        yield settings.traces.url


def _address(text: str) -> Iterator[str]:
    parts = urlsplit(text)
    scheme = parts.scheme.partition("+")[0]
    if scheme in _BUCKETS:
        endpoint = parse_qs(parts.query).get("endpoint", [""])[0]
        if endpoint:
            yield from _address(endpoint)
        else:
            yield f"{_ANYWHERE}:443"
        return
    if scheme not in _PORTS:
        return
    for each in parts.netloc.rpartition("@")[2].split(","):  # brokers, or hosts of one Postgres
        host, colon, port = each.rpartition(":") if not each.endswith("]") else (each, "", "")
        if name := (host if colon else each):
            yield f"{name}:{port if colon and port.isdigit() else _PORTS[scheme]}"
