"""Targets of a project's file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from mainspring.core.errors import Invalid
from mainspring.core.settings import TargetSetting
from mainspring.project import open_project
from mainspring.project.settings import load_settings


def targets(root: Path, table: str) -> dict[str, TargetSetting]:
    (root / "mainspring.toml").write_text(f'name = "own"\nmodules = ["own"]\n[profiles.far]\n{table}')
    return dict(load_settings(root, environment={}).targets)


def test_settings_and_options_are_parted(tmp_path: Path) -> None:
    table = (
        '[targets.east]\nkind = "systemd"\nprofile = "far"\nendpoints = ["late"]\nimage = "shop:1"\nreplicas = [0, 4]\n'
        'cpu = 0.5\nmemory = "2GiB"\ngpus = 1\nport = 9000\nenv = { A = "b" }\nsecrets = ["MAINSPRING_CATALOG"]\n'
        'region = "eu-west-1"\nworker = false\nfolder = "units"\n[targets.west]\nkind = "any"\nreplicas = 3\n'
    )
    found = targets(tmp_path, table)
    assert found["east"] == TargetSetting(
        name="east", kind="systemd", profile="far", endpoints=("late",), image="shop:1", replicas=(0, 4), cpu=0.5,
        memory=2 << 30, gpus=1, port=9000, env={"A": "b"}, secrets=("MAINSPRING_CATALOG",), region="eu-west-1",
        worker=False, options={"folder": "units"},
    )  # fmt: skip
    assert found["west"] == TargetSetting(name="west", kind="any", profile="local", replicas=(3, 3))


@pytest.mark.parametrize(
    "wrong",
    [
        "", "kind = 3", 'kind = "k"\nprofile = "never"', 'kind = "k"\nendpoints = "late"',
        'kind = "k"\nreplicas = [4, 1]',
        'kind = "k"\nreplicas = [0, 0]', 'kind = "k"\nreplicas = true', 'kind = "k"\ncpu = 0', 'kind = "k"\ncpu = nan',
        'kind = "k"\nmemory = "lots"', 'kind = "k"\ngpus = -1', 'kind = "k"\nport = 80', 'kind = "k"\nenv = { A = 1 }',
        'kind = "k"\nsecrets = ["MAINSPRING_CATALOG=x"]', 'kind = "k"\nregion = 1', 'kind = "k"\nworker = "yes"',
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(Invalid, match="east") as refused:
        targets(tmp_path, f"[targets.east]\n{wrong}\n")
    assert refused.value.fix


def test_a_name_is_an_id(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="target"):
        targets(tmp_path, '[targets."../up"]\nkind = "systemd"\n')


@pytest.mark.parametrize("kind", ["kubernetes", "helm", "kserve"])
def test_a_plane_with_a_certificate_is_not_put_into_pods(tmp_path: Path, kind: str) -> None:
    tls = 'control_tls_cert = "a.pem"\ncontrol_tls_key = "b.pem"\n'
    targets(tmp_path, f'{tls}[targets.east]\nkind = "{kind}"\nprofile = "far"\n')
    with (
        closing(open_project(load_settings(tmp_path, environment={}))) as project,
        pytest.raises(Invalid, match="'far' sets control_tls_cert"),
    ):
        project.target("east")
