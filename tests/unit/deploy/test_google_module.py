"""The module of Terraform beside the target `vertex`: a parser and the provider's schema, rights, network, alarms."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from kit import terraform as kit
from kit.cloud_targets import IMAGE, SIGN, VERTEX
from kit.terraform import Module
from mainspring.core.errors import Invalid
from mainspring.deploy.adapters.targets.clouds import vertex_target
from mainspring.deploy.adapters.targets.options import read_options
from mainspring.deploy.alarms import BurnAlarm
from mainspring.deploy.manifests.clouds.vertex import VertexOptions
from mainspring.deploy.targets.conformance import deployment
from mainspring.deploy.terraform.grants import grants
from mainspring.deploy.terraform.module import IAM, PAGE, VALUES
from mainspring.security.signing import SigningKey, check_signed_text

WHOLE = {
    **VERTEX,
    "terraform": True,
    "deployers": ["group:ml@example.org"],
    "callers": ["serviceAccount:web@shop-web.iam.gserviceaccount.com"],
    "notify": "ops@example.org",
}
PLACE = {"secrets": (), "image": IMAGE, "region": "europe-west4"}
BURN = BurnAlarm(
    endpoint="late",
    about="99.9% over 30 days",
    share=0.0144,
    within_s=0.0,
    long_s=3600,
    short_s=300,
    fewest=5,
    page=True,
)


def rendered(
    options: dict[str, Any] | None = None, alarms: tuple[BurnAlarm, ...] = (BURN,), **changes: Any
) -> dict[str, str]:
    given = {name: each for name, each in {**WHOLE, **(options or {})}.items() if each is not None}
    target = vertex_target(read_options(VertexOptions, given, "east"), Path("nowhere"), SIGN, lambda: alarms)
    return {each.name: each.content.decode() for each in target.render(deployment(**{**PLACE, **changes}))}


def module(texts: dict[str, str]) -> Module:
    own = {name.removeprefix("terraform/"): text for name, text in texts.items() if name.startswith("terraform/")}
    return Module({name: each for name, each in own.items() if name.endswith(".tf")}, json.loads(own[VALUES]))


USUAL = rendered()
MADE = module(USUAL)


def private(made: Module) -> list[str]:
    """Nothing has an address on the internet or a way to it; callers' machines reach the endpoints alone."""
    never = (
        "google_compute_route",
        "google_compute_router_nat",
        "google_compute_address",
        "google_compute_global_address",
    )
    found = [f"{name}: a way to the internet" for kind in never for name in made.of(kind)]
    for kind, argument, value in (
        ("google_compute_network", "delete_default_routes_on_create", True),
        ("google_compute_network", "auto_create_subnetworks", False),
        ("google_compute_subnetwork", "private_ip_google_access", False),
        ("google_network_connectivity_service_connection_policy", "service_class", "gcp-vertexai"),
    ):
        found += [f"{name}: {argument}" for name, body in made.of(kind).items() if body.get(argument) != value]
    walls = made.of("google_compute_firewall")
    found += [f"{name}: lets in" for name, body in walls.items() if body.get("direction") != "EGRESS"]
    open_to = [body["destination_ranges"] for body in walls.values() if "allow" in body]
    shut_to = [body["destination_ranges"] for body in walls.values() if body.get("deny") == [{"protocol": "all"}]]
    return found + ([] if (open_to, shut_to) == ([["${var.subnet}"]], [["0.0.0.0/0"]]) else ["firewall"])


@pytest.mark.parametrize("check", [kit.references, kit.arguments, kit.pinned, kit.secret, private])
def test_the_module_passes(check: Callable[[Module], list[str]]) -> None:
    assert check(MADE) == []


@pytest.mark.parametrize(
    ("check", "file", "old", "new", "found"),
    [
        (kit.references, "iam.tf", "var.kms_key", "var.key", "var.key is not declared"),
        (kit.references, "roles.tf", "google_project.this.number", "google_project.this.no", "no attribute no"),
        (kit.references, "alarms.tf", "local.channels", "[]", "local.channels is not used"),
        (kit.arguments, "alarms.tf", "disable_metric_validation", "unchecked", "unknown unchecked"),
        (kit.arguments, "network.tf", "service_class =", "class =", "no service_class"),
        (kit.arguments, "iam.tf", "crypto_key_id", "key", "no crypto_key_id"),
        (kit.arguments, "services.tf", '"google_project_service"', '"google_service"', "google_service is not known"),
        (kit.pinned, "versions.tf", "6.50.0", "~> 6.0", "provider google has the version"),
        (private, "network.tf", "create = true", "create = false", "delete_default_routes_on_create"),
        (private, "network.tf", "gcp-vertexai", "gcp-memorystore", "service_class"),
        (private, "network.tf", "[var.subnet]", '["0.0.0.0/0"]', "firewall"),
        (private, "network.tf", '"EGRESS"', '"INGRESS"', "lets in"),
    ],
)
def test_a_check_fails_where_its_property_is_broken(
    check: Callable[[Module], list[str]], file: str, old: str, new: str, found: str
) -> None:
    wrong = check(MADE.changed(file, old, new))
    assert any(found in each for each in wrong), wrong


def test_every_file_of_the_module_is_delivered_and_none_without_the_option() -> None:
    plain = rendered({"terraform": None, "deployers": None, "callers": None, "notify": None})
    changed = kit.changed_beside("google", USUAL, plain)
    assert changed == {name for name in plain if name.endswith("endpoint.json")}, "endpoints alone know the network"


def test_the_module_gives_the_rights_of_the_table_and_no_other() -> None:
    given = {name: body for name, body in MADE.resources.items() if name.partition(".")[0].endswith("_iam_member")}
    table = {f"{each.resource}.{each.name}": each for each in grants("google")}
    assert set(given) == set(table)
    for name, each in table.items():
        own = "${google_project_iam_custom_role." + each.name + ".id}"
        assert given[name]["role"] == (own if each.permissions else each.role)
        assert given[name]["member"] in ("${local.agent}", "${local.containers}", "${each.value}")
    roles = MADE.of("google_project_iam_custom_role")
    assert {name.partition(".")[2]: body["permissions"] for name, body in roles.items()} == {
        each.name: list(each.permissions) for each in table.values() if each.permissions
    }
    other = ("_iam_binding", "_iam_policy", "_key")  # which take rights from others, or are secrets
    assert not [name for name in MADE.resources if name.partition(".")[0].endswith(other)]
    used = set(MADE.resources) | {re.sub("^(train|pipeline)-.*(?=[.])", r"\1-NAME", Path(each).name) for each in USUAL}
    assert {code for each in table.values() for code in each.code} <= used


def test_the_page_of_the_manual_has_each_right_and_no_other() -> None:
    text = (Path(__file__).parents[3] / "docs/howto/managed-clouds.md").read_text()
    rows = [line for line in text.partition("## Azure ML")[0].splitlines() if line.startswith("|")]
    named = {role for row in rows for role in re.findall(r"roles/[A-Za-z.]+|aiplatform\.endpoints\.[a-z]+", row)}
    assert named == {right for each in grants("google") for right in each.permissions or (each.role,)}


def test_the_page_is_signed_and_says_what_each_right_is_for() -> None:
    page = USUAL[f"terraform/{PAGE}"]
    check_signed_text(page.encode(), SigningKey(b"k" * 32).public)
    assert sha256(USUAL[f"terraform/{IAM}"].encode()).hexdigest() in page
    for each in grants("google"):
        assert page.count(f"### {each.name}\n\n{each.why}\n") == 1
        assert not each.broad or each.broad in page


def test_rights_are_for_what_the_target_names() -> None:
    values = MADE.values
    place = {"location": "europe-west4", "project": "shop-prod"}
    assert values["repositories"] == {"europe-west4/shop-prod/models": {**place, "repository": "models"}}
    assert values["templates"] == {"europe-west4/shop-prod/pipelines": {**place, "repository": "pipelines"}}
    assert (values["bucket"], values["account"]) == ("shop-prod-training", {"id": "gateway", "project": "shop-prod"})
    bare = module(rendered({"trainings": None, "pipelines": None, "kms_key": None})).values
    assert (bare["bucket"], bare["templates"], bare["pipelines"], bare["kms_key"]) == ("", {}, False, "")


def test_a_private_endpoint_has_an_address_in_the_network_of_the_module() -> None:
    connections = json.loads(USUAL["shop-late/endpoint.json"])["privateServiceConnectConfig"]
    [automatic] = connections["pscAutomationConfigs"]
    assert automatic == {
        "projectId": "shop-prod",
        "network": "projects/shop-prod/global/networks/" + MADE.values["name"],
    }
    assert connections["projectAllowlist"] == ["shop-web", "shop-batch", "shop-prod"]
    [network] = MADE.of("google_compute_network").values()
    assert network["name"] == "${var.name}"
    public = module(rendered({"access": "public"}))
    assert public.values["private"] is False
    around = [body for name, body in public.resources.items() if "_compute_" in name or "_connectivity_" in name]
    assert {body["count"] for body in around} == {"${var.private ? 1 : 0}"}


def test_alarms_are_those_of_the_objectives_of_each_endpoint() -> None:
    other = BurnAlarm(endpoint="gone", about="", share=0.1, within_s=0.1, long_s=60, short_s=60, fewest=1, page=False)
    named = set(module(rendered(alarms=(BURN, other))).values["alarms"])
    assert {each for each in named if "shop-late" in each} == {"shop-late-replicas", "shop-late-failing-3600s-page"}
    assert not [each for each in named if "gone" in each]
    assert module(rendered({"notify": None})).values["alarms"] == {}
    channel = module(rendered({"notify": "projects/shop-prod/notificationChannels/123"})).values
    assert (channel["address"], channel["channel"]) == ("", "projects/shop-prod/notificationChannels/123")


@pytest.mark.parametrize(
    ("options", "changes", "told"),
    [
        ({"terraform": None}, {}, "deployers is of the module of Terraform: write terraform = true"),
        ({"deployers": ["allUsers"]}, {}, "'allUsers' is nobody"),
        ({"callers": ["domain:example.org"]}, {}, "'domain:example.org' is nobody"),
        ({"callers": ['user:a@b.org" }']}, {}, "is nobody"),
        ({"notify": "https://hooks.example.org/secret"}, {}, "notify is"),
        ({"subnet": "0.0.0.0/0"}, {}, "subnet is '0.0.0.0/0'"),
        ({"subnet": "34.1.2.0/24"}, {}, "subnet is"),
        ({"pipelines": {"p": "https://example.org/p.yaml"}}, {}, "not in Artifact Registry"),
        ({}, {"image": "docker.io/shop@sha256:" + "0f" * 32}, "not in Artifact Registry"),
        ({"machine": "e2-standard-2"}, {"region": "moon-west4"}, "'moon-west4'"),
    ],
)
def test_what_would_open_or_break_it_is_refused(options: dict[str, Any], changes: dict[str, Any], told: str) -> None:
    with pytest.raises(Invalid, match=re.escape(told)) as raised:
        rendered(options, **changes)
    assert raised.value.fix


def test_hostile_names_are_values_and_never_code() -> None:
    hostile = rendered(project="a ${file(1)}", target='e"${x}')
    same = {name for name in USUAL if name.endswith(".tf")}
    assert all(hostile[name] == USUAL[name] for name in same)
    values = json.loads(hostile[f"terraform/{VALUES}"])
    assert re.fullmatch("[a-z][a-z0-9-]{0,39}", values["name"])
    assert all(re.fullmatch("[a-z0-9_-]{0,63}", each) for each in values["labels"].values())
