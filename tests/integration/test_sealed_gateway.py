"""A gateway over a sealed catalog, without a container: keys that are revoked after it was sealed."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from pathlib import Path

from kit.fleet import BODY, INFER, Fleet
from kit.waiting import free_port, wait_until
from mainspring.core.time import HOUR
from mainspring.deploy.targets.model import Deployment, Service
from mainspring.processes.supervisor import Supervisor
from mainspring.project import open_project
from mainspring.project.image_content import ProjectParts
from mainspring.project.settings import load_settings
from mainspring.security.keys import issue
from mainspring.security.model import KeyScope


def status(port: int, key: str, path: str = INFER) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("POST" if path == INFER else "GET", path, BODY, {"Authorization": f"Bearer {key}"})
        return connection.getresponse().status


def test_a_revoked_key_is_refused_and_a_lost_list_is_no_list(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "project", workers=1)
    fleet.publish("1")
    other = issue(fleet.project.key_store, name="other", scopes=(KeyScope.PREDICT,), lifetime_us=HOUR,
                  clock=fleet.project.wall, pepper=fleet.project.pepper)  # fmt: skip
    port, image, revoked = free_port(), tmp_path / "image", tmp_path / "revoked"
    made = Deployment(project="fleet", target="east", profile="local", port=port,
                      services=(Service(endpoint="late-arrival", model="late-arrival"),))  # fmt: skip
    content = ProjectParts(fleet.project, "local").content(made)
    image.mkdir()
    for name, text in content.files.items():
        (image / name).write_text(text)
    (image / "bundles").symlink_to(fleet.project.settings.blobs.path)
    environment = {**content.env, "MAINSPRING_STATE": str(tmp_path / "state"), "MAINSPRING_GATEWAY_WORKERS": "1",
                   "MAINSPRING_GATEWAY": f"127.0.0.1:{port}", "MAINSPRING_PEPPER": fleet.project.pepper.hex(),
                   "MAINSPRING_REVOKED_KEYS_FILE": str(revoked), "MAINSPRING_GATEWAY_MAX_STALE": "2s",
                   "MAINSPRING_LEDGER": str(tmp_path / "log"), "OMP_NUM_THREADS": "1",
                   "MAINSPRING_ONLINE": f"sqlite:///{tmp_path}/online.db"}  # fmt: skip
    revoked.write_text("")
    with (
        closing(open_project(load_settings(image, environment=environment))) as project,
        Supervisor(project, environment, ("gateway",)).running(ready_within_s=60),
    ):
        wait_until(lambda: status(port, fleet.key) == 200, "the gateway")
        assert status(port, other) == 200
        [id] = [each.id for each in fleet.project.key_store.all() if each.name == "other"]
        revoked.write_text(f"{id}  # left the company\n")
        wait_until(lambda: status(port, other) == 401, "the revocation")
        assert status(port, fleet.key) == 200
        revoked.unlink()
        wait_until(lambda: status(port, fleet.key) == 503, "the end of trust in the last list")
        assert status(port, fleet.key, "/v2/health/ready") == 503
        revoked.write_text("")
        wait_until(lambda: status(port, fleet.key) == 200, "a list again")
        assert status(port, other) == 401, "what was revoked stays so"
    assert json.loads(content.files["serving.json"])["keys"].keys() >= {id}
