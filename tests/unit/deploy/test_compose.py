"""Files of Compose: their schema, and what a container may do.

`kit/compose_spec.json` is the schema of the Compose specification (Apache 2.0), without descriptions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

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
