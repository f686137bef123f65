"""The module of Terraform beside the target `azureml`: a parser and the provider's schema, rights, network, alarms."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from kit import terraform as kit
from kit.cloud_targets import AZURE, SIGN
from kit.terraform import Module
from mainspring.core.errors import Invalid
from mainspring.deploy.adapters.targets.clouds import azure_target
from mainspring.deploy.adapters.targets.options import read_options
from mainspring.deploy.alarms import BurnAlarm
from mainspring.deploy.manifests.clouds.azureml import AzureOptions
from mainspring.deploy.targets.conformance import deployment
from mainspring.deploy.terraform.azure import NETWORK
from mainspring.deploy.terraform.grants import grants
from mainspring.deploy.terraform.module import IAM, PAGE, VALUES
from mainspring.security.signing import SigningKey, check_signed_text

SOMEBODY, PROGRAM = "00000000-1111-2222-3333-444444444401", "00000000-1111-2222-3333-444444444402"
WHOLE = {**AZURE, "identity": None, "terraform": True, "deployers": [SOMEBODY], "callers": [PROGRAM]}
WHOLE |= {"clients": ["10.8.0.0/16"], "notify": "ops@example.org"}
PLACE = {"secrets": (), "image": "shopmodels.azurecr.io/shop@sha256:" + "0f" * 32, "region": "westeurope"}
GROUP = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/shop-models"
REGISTRY = "/providers/Microsoft.ContainerRegistry/registries"


def alarm(share: float = 0.0144, **changes: Any) -> BurnAlarm:
    usual = {"endpoint": "late", "about": "99.9% over 30 days", "within_s": 0.0, "long_s": 3600, "short_s": 300}
    return BurnAlarm(**{**usual, "share": share, "fewest": 5, "page": True, **changes})


SLOW = alarm(0.144, within_s=0.25, long_s=21_600, short_s=1800, page=False)


def rendered(
    options: dict[str, Any] | None = None, alarms: tuple[BurnAlarm, ...] = (alarm(), SLOW), **changes: Any
) -> dict[str, str]:
    given = {name: each for name, each in {**WHOLE, **(options or {})}.items() if each is not None}
    target = azure_target(read_options(AzureOptions, given, "east"), Path("nowhere"), SIGN, lambda: alarms)
    return {each.name: each.content.decode() for each in target.render(deployment(**{**PLACE, **changes}))}


def module(texts: dict[str, str]) -> Module:
    own = {name.removeprefix("terraform/"): text for name, text in texts.items() if name.startswith("terraform/")}
    return Module({name: each for name, each in own.items() if name.endswith(".tf")}, json.loads(own[VALUES]))


USUAL = rendered()
MADE = module(USUAL)


def private(made: Module) -> list[str]:
    """Nothing is reachable from the internet or reaches it; the clients reach the workspace's private address alone."""
    kinds = {name.partition(".")[0] for name in made.resources}
    found = [f"{each}: a way to the internet" for each in kinds if re.search("public_ip|nat_gateway|bastion|_lb", each)]
    for kind, argument, value in (
        ("azurerm_subnet", "default_outbound_access_enabled", False),
        ("azurerm_subnet", "private_endpoint_network_policies", "NetworkSecurityGroupEnabled"),
        ("azapi_update_resource", "body", {"properties": {"publicNetworkAccess": "Disabled"}}),
        ("azurerm_log_analytics_workspace", "internet_ingestion_enabled", False),
        ("azurerm_log_analytics_workspace", "local_authentication_enabled", False),
    ):
        bodies = made.of(kind).values()
        found += [] if [body.get(argument) for body in bodies] == [value] else [f"{kind}: {argument}"]
    [wall] = made.of("azurerm_network_security_group").values()
    rules = {(each["direction"], each["access"], each["priority"]): each for each in wall["security_rule"]}
    let_in = rules.pop(("Inbound", "Allow", 100), {})
    if let_in.get("source_address_prefixes") != "${concat([var.network], var.clients)}":
        found.append("others are let in")
    if (let_in.get("destination_address_prefix"), let_in.get("destination_port_range")) != ("${var.network}", "443"):
        found.append("let in to other places")
    every = ("source_address_prefix", "source_port_range", "destination_address_prefix", "destination_port_range")
    denied = [each for each in rules.values() if {each["protocol"], *(each.get(name) for name in every)} == {"*"}]
    if set(rules) != {("Inbound", "Deny", 4096), ("Outbound", "Deny", 4096)} or len(denied) != 2:
        found.append("not all else is refused")
    [endpoint] = made.of("azurerm_private_endpoint").values()
    if "${azurerm_subnet_network_security_group_association.endpoints}" not in endpoint["depends_on"]:
        found.append("open before its walls are there")
    return found


@pytest.mark.parametrize("check", [kit.references, kit.arguments, kit.pinned, kit.secret, private])
def test_the_module_passes(check: Callable[[Module], list[str]]) -> None:
    assert check(MADE) == []


@pytest.mark.parametrize(
    ("check", "file", "old", "new", "found"),
    [
        (kit.references, "iam.tf", "var.registry", "var.register", "var.register is not declared"),
        (kit.references, "iam.tf", "containers.principal_id", "containers.principal", "no attribute principal"),
        (kit.references, "alarms.tf", "local.told", "[]", "local.told is not used"),
        (kit.references, "network.tf", 'variable "clients"', 'variable "callers_of"', "var.clients is not declared"),
        (kit.arguments, "alarms.tf", "window_duration ", "window ", "no window_duration"),
        (kit.arguments, "alarms.tf", "action_group_id =", "group =", "action: unknown group"),
        (kit.arguments, "network.tf", "subresource_names", "subresources", "unknown subresources"),
        (kit.arguments, "network.tf", '"azapi_update_resource"', '"azapi_patch"', "azapi_patch is not known"),
        (kit.pinned, "versions.tf", "4.55.0", "~> 4.0", "provider azurerm has the version"),
        (kit.pinned, "versions.tf", "    azapi = {", "    api = {", "provider azapi has no version"),
        (private, "network.tf", '"Disabled"', '"Enabled"', "azapi_update_resource: body"),
        (private, "network.tf", "access_enabled   = false", "access_enabled = true", "default_outbound_access"),
        (private, "network.tf", '"NetworkSecurityGroupEnabled"', '"Disabled"', "private_endpoint_network_policies"),
        (private, "network.tf", "concat([var.network], var.clients)", '["*"]', "others are let in"),
        (private, "network.tf", '"443"', '"*"', "let in to other places"),
        (private, "network.tf", '"Deny"', '"Allow"', "not all else is refused"),
        (private, "network.tf", "[azurerm_subnet_network_security_group_association.endpoints]", "[]", "before its"),
        (private, "alarms.tf", "ingestion_enabled   = false", "ingestion_enabled = true", "internet_ingestion"),
    ],
)
def test_a_check_fails_where_its_property_is_broken(
    check: Callable[[Module], list[str]], file: str, old: str, new: str, found: str
) -> None:
    wrong = check(MADE.changed(file, old, new))
    assert any(found in each for each in wrong), wrong


def test_every_file_of_the_module_is_delivered_and_none_without_the_option() -> None:
    plain = rendered(dict.fromkeys(("terraform", "deployers", "callers", "clients", "notify")))
    changed = kit.changed_beside("azure", USUAL, plain)
    assert changed == {name for name in plain if name.endswith("endpoint.yml")}, "endpoints alone know the identity"


def test_public_endpoints_have_no_network_and_all_else() -> None:
    public = module(rendered({"access": "public", "clients": None}))
    assert set(MADE.texts) - set(public.texts) == {NETWORK}
    assert [check(public) for check in (kit.references, kit.arguments, kit.pinned)] == [[], [], []]


def test_the_module_gives_the_rights_of_the_table_and_no_other() -> None:
    table = {each.name: each for each in grants("azure")}
    given = {name.partition(".")[2]: body for name, body in MADE.of("azurerm_role_assignment").items()}
    own = {name.partition(".")[2]: body for name, body in MADE.of("azurerm_role_definition").items()}
    assert set(given) == set(table)
    assert set(own) == {each.name for each in table.values() if each.permissions}
    for name, each in table.items():
        body = given[name]
        assert body["scope"] == "${" + each.arguments["scope"] + "}"
        assert body["principal_id"] == "${" + each.arguments["principal_id"] + "}"
        role = f"${{azurerm_role_definition.{name}.role_definition_resource_id}}" if each.permissions else each.role
        assert (body.get("role_definition_id") or body["role_definition_name"]) == role
        if each.permissions:
            assert own[name]["permissions"] == [{"actions": list(each.permissions)}]
            assert own[name]["assignable_scopes"] == ["${local.group}"]
    on_group = {name for name, body in given.items() if body["scope"] == "${local.group}"}
    assert on_group == {"scale"}, "nothing else is given on more than one resource"
    kinds = {name.partition(".")[0] for name in MADE.resources}
    assert not [each for each in kinds if re.search("credential|key_vault|access_policy|lock", each)]
    used = {*MADE.resources, *(re.sub("^train-.*(?=[.])", "train-NAME", Path(each).name) for each in rendered(
        replicas=(1, 4)))}  # fmt: skip
    assert {code for each in table.values() for code in each.code} <= used


def test_the_page_of_the_manual_has_each_right_and_no_other() -> None:
    text = (Path(__file__).parents[3] / "docs/howto/managed-clouds.md").read_text()
    rows = text.partition("## Azure ML")[2].partition("| who | needs |")[2].partition("\n\n")[0].splitlines()[2:]
    needs = [re.findall("`([^`]+)`", row.split("|")[2].partition(" on ")[0]) for row in rows]
    assert {right for each in needs for right in each} == {
        right for each in grants("azure") for right in each.permissions or (each.role,)
    }


def test_the_page_is_signed_and_says_what_each_right_is_for() -> None:
    page = USUAL[f"terraform/{PAGE}"]
    check_signed_text(page.encode(), SigningKey(b"k" * 32).public)
    assert sha256(USUAL[f"terraform/{IAM}"].encode()).hexdigest() in page
    for each in grants("azure"):
        assert page.count(f"### {each.name}\n\n{each.why}\n") == 1


def test_hostile_names_are_values_and_never_code() -> None:
    hostile = '${file("/a")}" } %{ if x }\n| take 1'
    texts = rendered(project=hostile, target="e${x}", env={"NOTE": hostile})
    made = module(texts)
    assert made.texts == MADE.texts, "no code depends on a name"
    assert (made.values["project"], made.values["target"]) == (hostile, "e${x}")
    names = {made.values["name"], *made.values["endpoints"], *made.values["burning"]}
    names |= {each["endpoint"] for each in made.values["burning"].values()}
    assert all(re.fullmatch("[a-z][a-z0-9-]+", each) for each in names)


def test_names_of_the_module_are_those_of_the_files_beside_it() -> None:
    [identity] = json.loads(USUAL["shop-late/endpoint.yml"])["identity"]["user_assigned_identities"]
    assert identity["resource_id"].startswith(f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/")
    made = MADE.of("azurerm_user_assigned_identity")["azurerm_user_assigned_identity.containers"]["name"]
    assert identity["resource_id"].rpartition("/")[2] == made.replace("${var.name}", MADE.values["name"])
    files = {
        name.partition("/")[0]: json.loads(text) for name, text in USUAL.items() if name.endswith("deployment.yml")
    }
    assert MADE.values["endpoints"] == {name: each["name"] for name, each in files.items()}
    assert MADE.values["registry"] == f"{GROUP}{REGISTRY}/shopmodels"
    other = GROUP.replace("shop-models", "shared") + f"{REGISTRY}/shopModels"
    assert module(rendered({"registry": other})).values["registry"] == other
    marked = module(rendered(image=PLACE["image"].replace(".azurecr", "-a1b2c3.azurecr"))).values
    assert marked["registry"] == MADE.values["registry"]


def test_alarms_are_those_of_the_objectives_of_each_endpoint() -> None:
    burning = MADE.values["burning"]
    assert {name: (each["endpoint"], each["read"], each["severity"]) for name, each in burning.items()} == {
        "shop-late-failing-3600s-page": ("shop-late", "PT2H", 1),
        "shop-late-slow-250ms-21600s-ticket": ("shop-late", "P1D", 3),
    }
    others = (alarm(endpoint="gone"), alarm(long_s=86_400, short_s=7200), alarm(long_s=3 * 86_400, short_s=21_600))
    [day] = module(rendered(alarms=others)).values["burning"].values()
    assert (day["long"], day["read"]) == (86_400, "P2D")
    assert module(rendered({"notify": None})).values["burning"] == {}
    told = f"{GROUP}/providers/microsoft.insights/actionGroups/ops"
    assert module(rendered({"notify": told})).values["notify"] == told


def rows_of(engine: duckdb.DuckDBPyConnection, query: str, rows: list[tuple[Any, ...]], now: float) -> list[Any]:
    """Return the rows that a query of Kusto gives, of the few operators that alarms have, from DuckDB."""
    changes = (
        (r"ingestion_time\(\)", "Arrived"), (r"ago\((\d+)s\)", rf"({now} - \1)"), ("==", "="), ('"', "'"),
        (r"toint\((\w+)\)", r"try_cast(\1 as int)"), (r"todouble\((\w+)\)", r"try_cast(\1 as double)"),
        (r"isnull\((\w+)\)", r"(\1 is null)"), (r"countif\(([^()]*)\)", r"count(*) filter (where \1)"),
    )  # fmt: skip
    for old, new in changes:
        query = re.sub(old, new, query)
    table, *steps = [each.strip() for each in query.split("\n|")]
    text = "select * from log"
    for verb, _, rest in (each.partition(" ") for each in steps):
        columns = ", ".join(re.sub(r"^(\w+) = (.*)$", r"\2 as \1", each) for each in re.split(r", (?=\w+ = )", rest))
        text = {
            "where": f"select * from ({text}) where {rest}",
            "extend": f"select *, {columns} from ({text})",
            "summarize": f"select {columns} from ({text})",
        }[verb]
    assert table == "AmlOnlineEndpointTrafficLog"
    names = ("EndpointName", "ResponseCode", "ModelStatusCode", "TotalDurationMs", "Arrived")
    log = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    return engine.register("log", log).execute(text).fetchall()


def query_of(values: dict[str, Any]) -> str:
    [rule] = MADE.of("azurerm_monitor_scheduled_query_rules_alert_v2").values()
    text = "\n".join(line.strip() for line in rule["criteria"][0]["query"].splitlines()[1:-1])
    return re.sub(r"\$\{each\.value\.(\w+)\}", lambda found: f"{values[found[1]]}", text)


def rings(values: dict[str, Any], rows: list[tuple[Any, ...]], now: float) -> bool:
    """Whether both windows of a log are over the limit, counted one by one."""
    shares = []
    for seconds, fewest in ((values["long"], values["fewest"]), (values["short"], 1)):
        good = bad = 0
        for endpoint, code, inner, took, arrived in rows:
            if endpoint != values["endpoint"] or arrived <= now - seconds:
                continue
            answer = inner if code == "424" and inner is not None else 504 if code in ("408", "424") else int(code)
            if values["within"]:
                good += answer < 400 and took <= values["within"]
                bad += answer < 400 and took > values["within"]
            else:
                good += answer < 400
                bad += answer >= 500 or answer == 429
        shares.append(bad >= fewest and bad / (good + bad) > values["share"])
    return all(shares)


@pytest.mark.parametrize("name", sorted(MADE.values["burning"]))
def test_the_query_of_an_alarm_rings_just_where_both_windows_are_over_the_limit(name: str) -> None:
    values, dice, seen = MADE.values["burning"][name], random.Random(8), []
    failures = [("500", None), ("503", None), ("429", None), ("408", None), ("424", 500), ("424", 429), ("424", None)]
    others = [("200", 200), ("200", 200), ("404", None), ("401", None), ("424", 400), ("424", 422)]
    edges, engine = [values["short"], values["long"]], duckdb.connect(config={"threads": 1})
    for number in range(100):
        bad, slow, now = dice.choice([0.01, 0.3]), dice.choice([0.05, 0.5]), dice.choice([30_000, 90_000])
        ages = dice.choices([1, *(each - after for each in edges for after in (0, 1))], k=2)
        rows = [
            (dice.choice(["shop-late", "shop-late", "shop-price"]),
             *(failures[number % 7] if dice.random() < bad else dice.choice(others)),
             dice.choice([251, 900]) if dice.random() < slow else dice.choice([3, 250]),
             now - dice.choice(ages))
            for _ in range(dice.choice([4, 40, 200]))
        ]  # fmt: skip
        seen.append(rings(values, rows, now))
        assert bool(rows_of(engine, query_of(values), rows, now)) == seen[-1]
    assert 5 <= sum(seen) <= 95, sum(seen)


@pytest.mark.parametrize(
    ("options", "changes", "told"),
    [
        ({"terraform": None}, {}, "deployers is of the module of Terraform: write terraform = true"),
        (
            {"terraform": None, "deployers": None, "callers": None, "notify": None},
            {},
            "registry and clients are of the",
        ),
        ({"identity": AZURE["identity"]}, {}, "identity is made by the module of Terraform"),
        ({"deployers": ["me@example.org"]}, {}, "'me@example.org' is nobody"),
        ({"callers": ['" }']}, {}, "is nobody"),
        ({"auth": "key"}, {}, "tokens are checked"),
        ({"notify": "https://hooks.example.org/secret"}, {}, "notify is"),
        ({"registry": "shopmodels"}, {}, "registry is 'shopmodels'"),
        ({"registry": f"{GROUP}{REGISTRY}/other"}, {}, "is not in the registry"),
        ({"clients": ["0.0.0.0/0"]}, {}, "'0.0.0.0/0' is no private network"),
        ({"subnet": "34.1.2.0/24"}, {}, "no private network"),
        ({"subnet": "10.0.0.0/30"}, {}, "subnet is '10.0.0.0/30'"),
        ({}, {"image": "docker.io/shop@sha256:" + "0f" * 32}, "in no registry of Azure"),
        ({}, {"region": "eu-west-1"}, "'eu-west-1'"),
        ({"resource_group": 'a"}'}, {}, "resource_group"),
    ],
    ids=str,
)
def test_what_would_open_or_break_it_is_refused(options: dict[str, Any], changes: dict[str, Any], told: str) -> None:
    with pytest.raises(Invalid, match=re.escape(told)) as raised:
        rendered(options, **changes)
    assert raised.value.fix
