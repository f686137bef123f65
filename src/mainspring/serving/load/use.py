"""Executors, memory and caches of endpoints, read back from the Prometheus text of the gateway's processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from prometheus_client.parser import text_string_to_metric_families


class CacheUse(msgspec.Struct, kw_only=True):
    """Earlier answers of an endpoint, over all processes, since they started.

    Attributes:
        hits: Requests that an earlier answer answered; `shared`, that waited for an equal one.
        misses: Requests that were computed; `refused`, those whose callers wanted that.
        evictions: Answers that left for want of room.
        answers, nbytes: Those that are kept now.
    """

    hits: int = 0
    shared: int = 0
    misses: int = 0
    refused: int = 0
    evictions: int = 0
    answers: int = 0
    nbytes: int = 0


@dataclass(slots=True)
class Use:
    """One endpoint's, over all processes.

    Attributes:
        executors: Of its models that run in processes of their own, or may be out of memory; those in it count as one.
        nbytes: Of its models that are in memory.
        cache: `None` without a cache.
    """

    executors: int = 0
    nbytes: int = 0
    cache: CacheUse | None = None


@dataclass(slots=True)
class Uses:
    """All of a machine's; `used` and `limit` are bytes of models, the limit 0 without a bound."""

    endpoints: dict[str, Use] = field(default_factory=dict)
    used: int = 0
    limit: int = 0


_CACHE = {"hit": "hits", "joined": "shared", "miss": "misses", "refused": "refused"}


def read_uses(texts: Mapping[int, bytes]) -> Uses:
    """Return what the numbers of processes, by slot, add up to."""
    found = Uses()
    for text in texts.values():
        here: dict[tuple[str, str], bool] = {}
        sizes: dict[tuple[str, str], int] = {}
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                endpoint, value = sample.labels.get("endpoint", ""), int(sample.value)
                if sample.name == "mainspring_models_memory_used_bytes":
                    found.used += value
                elif sample.name == "mainspring_models_memory_limit_bytes":
                    found.limit += value
                elif sample.name == "mainspring_model_executors":
                    found.endpoints.setdefault(endpoint, Use()).executors += value
                elif sample.name == "mainspring_model_in_memory":
                    here[endpoint, sample.labels["version"]] = bool(value)
                elif sample.name == "mainspring_model_memory_bytes":
                    sizes[endpoint, sample.labels["version"]] = value
                elif sample.name.startswith("mainspring_cache_"):
                    _count(found.endpoints.setdefault(endpoint, Use()), sample.name, sample.labels, value)
        for (endpoint, version), nbytes in sizes.items():
            if here.get((endpoint, version)):
                found.endpoints.setdefault(endpoint, Use()).nbytes += nbytes
    return found


def _count(use: Use, sample: str, labels: Mapping[str, str], value: int) -> None:
    cache = use.cache = use.cache or CacheUse()
    name = {
        "mainspring_cache_requests_total": _CACHE.get(labels.get("outcome", "")),
        "mainspring_cache_bytes": "nbytes",
        "mainspring_cache_answers": "answers",
        "mainspring_cache_evictions_total": "evictions",
    }.get(sample)
    if name is not None:
        setattr(cache, name, getattr(cache, name) + value)
