"""Files of Compose: their schema, and what a container may do.

`kit/compose_spec.json` is the schema of the Compose specification (Apache 2.0), without descriptions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from kit.watching import watching
from mainspring.core.errors import Invalid
from mainspring.deploy.adapters.targets.compose import ComposeOptions, ComposeTarget
from mainspring.deploy.targets.conformance import deployment

SCHEMA = json.loads((Path(__file__).parents[2] / "kit" / "compose_spec.json").read_text())


def rendered(tmp_path: Path, **changes: object) -> dict[str, Any]:
    [piece] = ComposeTarget(ComposeOptions(), tmp_path).render(deployment(**changes))
    found: dict[str, Any] = json.loads(piece.content)
    return found


@pytest.mark.parametrize("changes", [{}, {"gpus": 2}, {"secrets": ()}, {"replicas": (1, 3), "cpu": 0.5}])
def test_a_file_is_of_the_schema(tmp_path: Path, changes: dict[str, object]) -> None:
    found = rendered(tmp_path, **changes)
    jsonschema_rs.validator_for(SCHEMA).validate(found)
    found["services"]["gateway"]["red_only"] = True
    with pytest.raises(jsonschema_rs.ValidationError, match="red_only"):
        jsonschema_rs.validator_for(SCHEMA).validate(found)


def test_a_container_may_do_little_and_has_no_secret(tmp_path: Path) -> None:
    found = rendered(tmp_path, replicas=(1, 2), cpu=1.5, memory=1 << 30)
    gateway = found["services"]["gateway"]
    assert (gateway["read_only"], gateway["cap_drop"], gateway["user"]) == (True, ["ALL"], "10001:10001")
    assert gateway["security_opt"] == ["no-new-privileges:true"]
    assert gateway["deploy"]["resources"]["limits"] == {"cpus": "3", "memory": "2097152k", "pids": 1024}
    assert gateway["ports"] == ["127.0.0.1:8080:8080"], "on loopback alone"
    assert gateway["env_file"] == ["./shop.env"]
    assert gateway["environment"] == {"MAINSPRING_CATALOG_HOST": "db.example.org"}
    assert not {"privileged", "network_mode", "pid", "ipc", "devices", "cap_add"} & set(gateway)
    assert found["secrets"] == {"mainspring-pepper": {"file": "./mainspring-pepper"}}


def test_values_are_not_interpolated(tmp_path: Path) -> None:
    found = rendered(tmp_path, env={"NOTE": "${HOME} $x"})
    assert found["services"]["gateway"]["environment"] == {"NOTE": "$${HOME} $$x"}
    with pytest.raises(Invalid, match="NOTE"):
        rendered(tmp_path, env={"NOTE": "two\nlines"})


@pytest.mark.parametrize("wrong", [{"listen": ""}, {"listen": "0.0.0.0 "}, {"pepper": "${X}"}])
def test_options_that_a_file_cannot_have_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ComposeOptions(**wrong)


WHOLE = {"contents": "project", "postgres": "docker.io/library/postgres@sha256:" + "ab" * 32,
         "redis": "docker.io/library/redis@sha256:" + "cd" * 32}  # fmt: skip


def whole(tmp_path: Path, **changes: object) -> dict[str, Any]:
    [piece] = ComposeTarget(ComposeOptions(**WHOLE), tmp_path).render(deployment(**changes))  # type: ignore[arg-type]
    found: dict[str, Any] = json.loads(piece.content)
    return found


def test_parts_of_a_project_have_states_of_their_own_and_stores_that_they_share(tmp_path: Path) -> None:
    found = whole(tmp_path)
    jsonschema_rs.validator_for(SCHEMA).validate(found)
    services = found["services"]
    assert services.keys() == {"gateway", "worker", "postgres", "redis"}
    states = [services[name]["volumes"][0].partition(":") for name in ("gateway", "worker")]
    assert [volume for volume, _, _ in states] == ["gateway", "worker"]
    for name in ("gateway", "worker"):
        assert services[name]["volumes"][1:] == [
            "stores:/var/lib/mainspring-stores",
            "./keys:/run/mainspring/keys:ro",
        ]
        assert services[name]["environment"]["MAINSPRING_KEYS_FOLDER"] == "/run/mainspring/keys"
        assert services[name]["env_file"] == ["./shop.env"]
    assert services["gateway"]["command"] == ["up", "--contained", "--only", "gateway", "--only", "log"]
    assert services["worker"]["command"] == ["up", "--contained", "--only", "control", "--only", "worker"]
    assert services["worker"]["environment"]["MAINSPRING_PROBE"] == "8081/health/live"
    assert set(found["volumes"]) == {"gateway", "worker", "postgres", "redis", "stores"}
    assert "worker" not in whole(tmp_path, worker=False)["services"]


def test_each_container_may_do_little_and_only_two_are_reached_from_outside(tmp_path: Path) -> None:
    services = whole(tmp_path)["services"]
    for each in services.values():
        assert (each["read_only"], each["cap_drop"]) == (True, ["ALL"])
        assert each["security_opt"] == ["no-new-privileges:true"]
        assert each["user"] not in ("", "root", "0")
        assert {"cpus", "memory", "pids"} <= each["deploy"]["resources"]["limits"].keys()
        assert not {"privileged", "network_mode", "pid", "ipc", "devices", "cap_add"} & set(each)
        assert "PASSWORD" not in {name for name in each.get("environment", {}) if not name.endswith("_FILE")}
    assert {name: each.get("ports") for name, each in services.items()} == {
        "gateway": ["127.0.0.1:8080:8080"], "worker": ["127.0.0.1:8081:8081"], "postgres": None, "redis": None,
    }  # fmt: skip


def test_a_sealed_image_is_told_of_revoked_keys_by_a_folder(tmp_path: Path) -> None:
    [piece] = ComposeTarget(ComposeOptions(revoked="./revoked"), tmp_path).render(deployment())
    gateway = json.loads(piece.content)["services"]["gateway"]
    assert gateway["volumes"][1] == "./revoked:/run/mainspring/revoked:ro"
    assert gateway["environment"]["MAINSPRING_REVOKED_KEYS_FILE"] == "/run/mainspring/revoked/keys"


@pytest.mark.parametrize(
    "wrong",
    [
        {"postgres": "postgres:17"}, {"redis": "redis"}, {"keys": ""}, {"worker_memory_mib": 1}, {"worker_cpu": 0.0},
        {"console_port": 80}, {"grafana_port": 80}, {"prometheus": "prom/prometheus:v3"}, {"keep_metrics": 0},
        {"grafana": "grafana@sha256:" + "ef" * 32}, {"contents": "project", "revoked": "./revoked"},
    ],
)  # fmt: skip
def test_options_of_a_project_that_a_file_cannot_have_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=[*wrong][-1]):
        ComposeOptions(**wrong)


IMAGES = {name: f"docker.io/{name}/{name}@sha256:" + "ef" * 32 for name in ("prometheus", "grafana")}
KEY_FILE = "/run/secrets/scrape-key"


def watched(tmp_path: Path, **changes: Any) -> dict[str, bytes]:
    """Return the files of a project with Prometheus and Grafana."""
    options = ComposeOptions(**{**WHOLE, **IMAGES, **changes})
    target = ComposeTarget(options, tmp_path, watching(hosts=("models.example.org",)))
    return {each.name: each.content for each in target.render(deployment())}


def test_a_prometheus_and_a_grafana_beside_it_have_its_rules_and_dashboard(tmp_path: Path) -> None:
    files = watched(tmp_path)
    found = json.loads(files["compose.yaml"])
    jsonschema_rs.validator_for(SCHEMA).validate(found)
    services = found["services"]
    for name in ("gateway", "worker"):
        assert services[name]["environment"]["MAINSPRING_ALLOWED_HOSTS"] == "models.example.org,gateway,worker"
    for name in ("prometheus", "grafana"):
        each = services[name]
        assert (each["read_only"], each["cap_drop"], each["image"]) == (True, ["ALL"], IMAGES[name])
        assert not each["user"].startswith(("0", "root"))
    assert "ports" not in services["prometheus"], "it asks nobody who they are"
    assert services["grafana"]["ports"] == ["127.0.0.1:3000:3000"]
    assert {"scrape-key", "grafana-password"} <= set(found["secrets"])
    assert {"prometheus", "grafana"} <= set(found["volumes"])
    config = files["monitoring/prometheus/prometheus.yml"].decode()
    assert '"gateway:8080"' in config
    assert '"worker:8081"' in config
    assert KEY_FILE in config
    mounted = {each.split(":")[0] for name in ("prometheus", "grafana") for each in services[name]["volumes"]}
    assert {f"./{name.rpartition('/')[0]}" for name in files if "/" in name} <= {
        *mounted, *(f"{each}/{kind}" for each in mounted for kind in ("dashboards", "datasources")),
    }  # fmt: skip
    alone = watched(tmp_path, grafana="", contents="gateway")
    assert set(alone) == {"monitoring/prometheus/prometheus.yml", "monitoring/prometheus/mainspring.rules.yml",
                          "compose.yaml"}  # fmt: skip
    assert "worker" not in alone["monitoring/prometheus/prometheus.yml"].decode()


def test_two_planes_at_one_port_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="same port 8081"):
        whole(tmp_path, port=8081)
