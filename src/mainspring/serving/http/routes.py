"""The routes of the data plane over HTTP: the protocol's own, and those that Triton's clients call beside them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from mainspring.security.model import Action


@dataclass(frozen=True, slots=True)
class DataRoute:
    """One route of the data plane. `action` is what the caller must be allowed on the endpoint of the path, or on the
    project where it has none; `None`: a probe, for which no key is needed. `in_body`: the body names the endpoint, so
    the handler checks the action once it has read that."""

    method: str
    path: str  # {model}, {collection}, {version} and {region} stand for one segment each
    action: Action | None
    handler: str  # the method of `Gateway`, or of `Extensions`, that answers
    in_body: bool = False


def _open(method: str, path: str, handler: str) -> DataRoute:
    return DataRoute(method, path, Action.GATEWAY_OPEN, handler)


def _versioned(method: str, last: str, handler: str) -> tuple[DataRoute, ...]:
    action = Action.ENDPOINT_PREDICT if method == "POST" else Action.ENDPOINT_DESCRIBE
    return tuple(DataRoute(method, f"/v2/models/{{model}}{version}{last}", action, handler) for version in _VERSIONS)


_VERSIONS = ("", "/versions/{version}")
_REGIONS = tuple(
    _open(method, f"/v2/{kind}sharedmemory/{path}", handler)
    for kind in ("system", "cuda")
    for method, path, handler in (
        ("GET", "status", "regions"),
        ("GET", "region/{region}/status", "region"),
        ("POST", "region/{region}/register", "register"),
        ("POST", "region/{region}/unregister", "unregister"),
        ("POST", "unregister", "unregister"),
    )
)
_SETTINGS = tuple(
    DataRoute(method, path, Action.ENDPOINT_DESCRIBE if "{model}" in path else Action.GATEWAY_OPEN, "settings")
    for path in ("/v2/trace/setting", "/v2/models/{model}/trace/setting", "/v2/logging")
    for method in ("GET", "POST")
)

ROUTES: tuple[DataRoute, ...] = (
    DataRoute("GET", "/v2/health/live", None, "live_probe"),
    DataRoute("GET", "/v2/health/ready", None, "ready_probe"),
    _open("GET", "/v2", "server"),
    _open("GET", "/v2/openapi.json", "openapi"),
    *_versioned("GET", "", "model"),
    *_versioned("GET", "/ready", "model_ready"),
    *_versioned("POST", "/infer", "infer"),
    *_versioned("POST", "/explain", "explain"),
    *_versioned("POST", "/generate_stream", "generate_stream"),
    *_versioned("GET", "/config", "config"),
    *_versioned("GET", "/stats", "statistics"),
    _open("GET", "/v2/models/stats", "statistics"),
    _open("POST", "/v2/repository/index", "index"),
    DataRoute("POST", "/v2/repository/models/{model}/load", Action.ENDPOINT_DESCRIBE, "load"),
    DataRoute("POST", "/v2/repository/models/{model}/unload", Action.ENDPOINT_DESCRIBE, "load"),
    *_REGIONS,
    *_SETTINGS,
    DataRoute("GET", "/metrics", Action.METRICS_SCRAPE, "numbers"),
)
_LONGEST = 512


def split_path(path: str) -> tuple[str, str, str]:
    """Return a path's template as in `ROUTES`, and the model and version in it, empty where it has none."""
    return _remembered(path) if len(path) <= _LONGEST else _split(path)


def _split(path: str) -> tuple[str, str, str]:
    parts = path.split("/")
    model = version = ""
    match parts[1:]:
        case ["v2", "models", "stats"]:
            pass
        case ["v1", "models" | "answers", model]:
            parts[3:] = ["{model}"]
        case ["v1", "answers", model, "ratings"]:
            parts[3] = "{model}"
        case ["v1", "collections", model, "search"]:
            parts[3] = "{collection}"
        case ["v2", "models", model, "versions", version, *rest]:
            parts[3:] = ["{model}", "versions", "{version}", *rest]
        case ["v2", "models", model, *rest]:
            parts[3:] = ["{model}", *rest]
        case ["v2", "repository", "models", model, *rest]:
            parts[4:] = ["{model}", *rest]
        case ["v2", "systemsharedmemory" | "cudasharedmemory", "region", _, *rest]:
            parts[4:] = ["{region}", *rest]
    return "/".join(parts), model, version


_remembered = lru_cache(maxsize=1024)(_split)
