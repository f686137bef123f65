"""Addresses of a profile's servers, for policies of networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainspring.deploy.manifests.serving.networks import egress
from mainspring.project.servers import servers
from mainspring.project.settings import load_settings

PROFILE = """
name = "shop"
modules = []
[profiles.there]
catalog = "postgresql+psycopg://shop:hidden@db.data.svc:6432/shop"
tracking = "postgresql://10.0.0.7/shop"
online = "redis://cache.example.org"
lake = "s3://lake/shop"
blobs = "s3://bundles?endpoint=https://minio.data.svc:9000&region=x"
streams = "kafka://one.example.org:9093,two.example.org"
metrics = "https://collector.example.org/otlp"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "mainspring.toml").write_text(PROFILE)
    return tmp_path


def test_servers_are_hosts_and_ports_without_secrets(root: Path) -> None:
    assert servers(load_settings(root, "there", environment={})) == [
        "10.0.0.7:5432",
        "any:443",
        "cache.example.org:6379",
        "collector.example.org:443",
        "db.data.svc:6432",
        "minio.data.svc:9000",
        "one.example.org:9093",
        "two.example.org:9092",
    ]


def test_files_have_no_server_and_secrets_have_usual_ports(root: Path) -> None:
    settings = load_settings(root, "local", environment={})
    assert servers(settings) == []
    assert servers(settings, ["MAINSPRING_CATALOG", "MAINSPRING_ONLINE", "OTHER"]) == ["any:5432", "any:6379"]


def test_a_warehouse_has_hosts_of_its_own_and_a_file_none(root: Path) -> None:
    for url, found in {"snowflake://me@acme/DB/S": ["any:443"], "duckdb:///w.db": []}.items():
        outside = {"MAINSPRING_WAREHOUSE_URL": url}
        assert servers(load_settings(root, "local", environment=outside)) == found


def test_an_open_port_is_opened_to_all_and_a_known_host_to_itself(root: Path) -> None:
    rules = egress(servers(load_settings(root, "there", environment={})))
    assert rules[-1] == {"ports": [{"port": port, "protocol": "TCP"} for port in (443, 6379, 9092, 9093)]}
    assert {"to": [{"ipBlock": {"cidr": "10.0.0.7/32"}}], "ports": [{"port": 5432, "protocol": "TCP"}]} in rules
