"""The module of Terraform: what a parser reads in it, the rights that it gives, and values that may be hostile."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import terraform as kit
from kit.terraform import Module
from mainspring.core.errors import Corrupt, Invalid
from mainspring.deploy.adapters.targets.terraform import TerraformTarget
from mainspring.deploy.alarms import BurnAlarm
from mainspring.deploy.targets.conformance import deployment
from mainspring.deploy.targets.model import Service
from mainspring.deploy.terraform.aws import fargate_size
from mainspring.deploy.terraform.module import IAM, PAGE, VALUES
from mainspring.deploy.terraform.options import TerraformOptions
from mainspring.deploy.terraform.page import HOLDERS
from mainspring.deploy.terraform.statements import policies, read, statements
from mainspring.security.signing import SigningKey, check_signed_text

KEY = SigningKey(b"k" * 32)
PLACE = {
    "region": "eu-central-1",
    "image": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/shop@sha256:" + "0f" * 32,
}
CERTIFICATE = "arn:aws:acm:eu-central-1:123456789012:certificate/0f0f0f0f-0000-4000-8000-0f0f0f0f0f0f"


def options(**changes: Any) -> TerraformOptions:
    return TerraformOptions(**{"certificate": CERTIFICATE, "hosts": ["models.example.org"], **changes})


def rendered(changed: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, str]:
    target = TerraformTarget(options(**(changed or {})), Path("never"), 10, ("inside.example.org",), KEY.sign)
    return {each.name: each.content.decode() for each in target.render(deployment(**{**PLACE, **changes}))}


USUAL = rendered()


def module(**changes: Any) -> Module:
    texts = rendered(**changes)
    return Module({name: each for name, each in texts.items() if name.endswith(".tf")}, json.loads(texts[VALUES]))


@pytest.fixture(scope="module")
def made() -> Module:
    return module()


@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.__name__)
def test_the_module_passes(made: Module, check: Callable[[Module], list[str]]) -> None:
    assert check(made) == []


BROKEN = [
    ("references", "keys.tf", "aws_kms_key.master.key_id", "aws_kms_key.other.key_id", "aws_kms_key.other"),
    ("references", "keys.tf", "aws_kms_key.master.key_id", "aws_kms_key.master.number", "no attribute number"),
    ("references", "network.tf", "com.amazonaws.${var.region}.s3", "com.amazonaws.${var.place}.s3", "var.place"),
    ("references", "processes.tf", '"${local.bucket}/lake', '"${local.folder}/lake', "local.folder"),
    ("references", "secrets.tf", "local.authority", "var.database_authority", "local.authority is not used"),
    ("references", "variables.tf", 'variable "port"', 'variable "gate"', "var.port is not declared"),
    ("arguments", "network.tf", "cidr_block           = var.network", "cidr = var.network", "unknown cidr"),
    ("arguments", "stores.tf", "instance_class", "class", "no instance_class"),
    ("arguments", "gateway.tf", "assign_public_ip =", "public_ip =", "network_configuration: unknown public_ip"),
    ("arguments", "worker.tf", "registry_arn =", "registry =", "service_registries: unknown registry"),
    ("references", "worker.tf", "service_registries.value", "service_registry.value", "service_registry.value is not"),
    ("arguments", "balancer.tf", '"aws_lb" "this"', '"aws_balancer" "this"', "aws_balancer is not known"),
    ("pinned", "versions.tf", "6.25.0", "~> 6.25", "provider aws has the version"),
    ("pinned", "versions.tf", ", < 2.0.0", "", "required_version"),
    ("pinned", "keys.tf", "# Two keys", 'module "x" {\n  source = "y"\n}\n# Two keys', "module x"),
    ("pinned", "versions.tf", "    random = {", "    chance = {", "provider random has no version"),
    ("private", "network.tf", "map_public_ip_on_launch = false", "map_public_ip_on_launch = true", "map_public_ip"),
    ("private", "network.tf", 'resource "aws_flow_log"', 'resource "aws_internet_gateway"', "a way to the internet"),
    ("private", "balancer.tf", "internal                   = true", "internal = false", "not internal"),
    ("private", "gateway.tf", "assign_public_ip = false", "assign_public_ip = true", "assign_public_ip"),
    ("private", "stores.tf", "publicly_accessible             = false", "publicly_accessible = true", "publicly"),
    ("private", "stores.tf", "block_public_policy     = true", "block_public_policy = false", "block_public_policy"),
    ("private", "firewall.tf", "each.value.network", '"0.0.0.0/0"', "everybody"),
    ("encrypted", "stores.tf", "storage_encrypted               = true", "storage_encrypted = false", "storage_enc"),
    ("encrypted", "stores.tf", "kms_master_key_id = aws_kms_key.stores.arn", "", "aws_s3_bucket.data: no key"),
    ("encrypted", "logs.tf", "  kms_key_id        = aws_kms_key.stores.arn", "", "aws_cloudwatch_log_group"),
    ("encrypted", "secrets.tf", "  kms_key_id  = aws_kms_key.stores.arn", "", "aws_secretsmanager_secret.catalog"),
    ("encrypted", "keys.tf", "enable_key_rotation     = true", "enable_key_rotation = false", "not rotated"),
    ("encrypted", "balancer.tf", '"HTTPS"', '"HTTP"', "no TLS"),
    ("encrypted", "worker.tf", 'transit_encryption = "ENABLED"', 'transit_encryption = "DISABLED"', "in clear"),
    ("encrypted", "stores.tf", 'value = "1"', 'value = "0"', "the database answers in clear"),
    ("encrypted", "versions.tf", "encrypt      = true", "encrypt = false", "state in clear"),
    ("kept", "logs.tf", "  retention_in_days = var.keep_logs", "", "kept for ever"),
    ("kept", "stores.tf", "deletion_protection             = var.protected", "", "deletion_protection"),
    ("arguments", "alarms.tf", "comparison_operator = \"GreaterThanThreshold\"", "", "no comparison_operator"),
    ("arguments", "alarms.tf", "period      = each.value.seconds", "", "metric_query: metric: no period"),
    ("references", "alarms.tf", "aws_lb.this.arn_suffix", "aws_lb.this.suffix", "no attribute suffix"),
    ("kept", "stores.tf", 'status = "Enabled"', 'status = "Suspended"', "no versions"),
    ("secret", "stores.tf", "password_wo         ", "password            ", "aws_db_instance.this: password"),
    ("secret", "secrets.tf", "secret_string_wo = join", "secret_string = join", "secret_string"),
    ("secret", "stores.tf", 'ephemeral "random_password"', 'resource "random_password"', "its value is in the state"),
    ("secret", "outputs.tf", "aws_lb.this.dns_name", "ephemeral.random_password.database.result", "ephemeral"),
    ("tagged", "versions.tf", "Target    = var.target", "", "no tags"),
    ("confined", "processes.tf", "readonlyRootFilesystem = true\n        linuxParameters        = { cap",
     "readonlyRootFilesystem = false\n        linuxParameters = { cap", "readonlyRootFilesystem"),
    ("confined", "processes.tf", 'drop = ["ALL"]', 'add = ["SYS_PTRACE"]', "linuxParameters"),
    ("confined", "processes.tf", 'user                   = "10001:10001"', 'user = "0:0"', "user"),
    ("confined", "gateway.tf", "enable_execute_command             = false", "", "enable_execute_command"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "file", "old", "new", "found"), BROKEN, ids=str)
def test_a_check_fails_where_its_property_is_broken(
    made: Module, check: str, file: str, old: str, new: str, found: str
) -> None:
    wrong = getattr(kit, check)(made.changed(file, old, new))
    assert any(found in each for each in wrong), wrong


def test_without_a_worker_no_process_port_or_role_of_it_is_made() -> None:
    made = module(worker=False)
    assert made.values["worker"] is False
    for name, body in made.resources.items():
        if name.endswith((".worker", ".worker_start")) and not name.startswith("aws_security_group."):
            assert str(body.get("count")).startswith("${var.worker ? "), name
    [processes] = [each["processes"] for each in made.blocks("locals") if "processes" in each]
    assert processes == '${toset(var.worker ? ["gateway", "worker"] : ["gateway"])}'


# Rights


def test_policies_are_those_of_the_table_and_no_other(made: Module) -> None:
    table = policies(statements("aws"))
    documents = {name.partition(".")[2]: body for name, body in made.named("data").items() if "statement" in body}
    assert set(documents) == set(table) == set(HOLDERS)
    for name, body in documents.items():
        for found, row in zip(body["statement"], table[name], strict=True):
            assert (found["sid"], found["actions"]) == (row.sid, list(row.actions)), name
            assert found.get("effect", "Allow") == row.effect
            assert bool(found.get("principals")) == bool(row.services or row.roles or row.accounts or row.anybody)
            assert [each["variable"] for each in found.get("condition", [])] == [each[1] for each in row.conditions]
            for resource in row.resources:
                assert resource.removeprefix("${").removesuffix("}") in json.dumps(found["resources"]).replace("\\", "")
    inline = {"aws_iam_role_policy_attachment", "aws_iam_policy", "aws_iam_user", "aws_iam_access_key"}
    assert not inline & {name.partition(".")[0] for name in made.resources}
    used = "".join(made.texts.values())
    assert all(f"data.aws_iam_policy_document.{name}" in used for name in table), "a policy that nobody has"
    assert not re.search(r"\b(Action|Effect|Statement)\b", used), "a policy that is not of the table"


def test_each_statement_names_code_that_there_is(made: Module) -> None:
    for each in statements("aws"):
        for code in each.code:
            assert code in made.resources or find_spec(code) is not None, f"{each.sid}: {code}"


ROW = 'policies = ["p"]\nsid = "S"\nactions = ["s3:GetObject"]\nresources = ["${x}/a"]\nwhy = "w"\ncode = ["c"]\n'


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('why = "w"', 'why = ""', "has no why"),
        ('code = ["c"]', "code = []", "has no code"),
        ("s3:GetObject", "s3:*", "no reason for it in `every`"),
        ("s3:GetObject", "*", "no reason for it in `every`"),
        ('"${x}/a"', '"*"', "no reason for it in `every`"),
        ('"${x}/a"', '"${x}/*"', "no reason for it in `every`"),
        ('"${x}/a"', '"arn:aws:s3:::bucket/*"', "no reason for it in `every`"),
        ('"${x}/a"', '"arn:aws:logs:region:account:log-group:*"', "no reason for it in `every`"),
        ('code = ["c"]', 'code = ["c"]\nanybody = true', "no reason for it in `every`"),
        ('code = ["c"]', 'code = ["c"]\nevery = "e"', "and none"),
        ('code = ["c"]', 'code = ["c"]\nreason = "e"', "unknown field"),
        ('code = ["c"]\n', f'code = ["c"]\n[[statement]]\n{ROW}', "two statements 'S'"),
    ],
)
def test_a_statement_without_its_reason_is_refused(old: str, new: str, why: str) -> None:
    text = f"[[statement]]\n{ROW}"
    assert [each.sid for each in read(text)] == ["S"]
    with pytest.raises(ValueError, match=why):
        read(text.replace(old, new))


def test_the_page_is_signed_and_names_each_statement() -> None:
    texts = rendered()
    page = texts[PAGE].encode()
    check_signed_text(page, KEY.public)
    assert sha256(texts[IAM].encode()).hexdigest() in texts[PAGE]
    for each in statements("aws"):
        assert texts[PAGE].count(f"### {each.sid}\n\n{each.why}\n") == len(each.policies)
        assert not each.every or each.every in texts[PAGE]
    for changed in (page.replace(b"allows", b"grants", 1), page[:-1], page + b"\n", page.replace(b"shop", b"shoq")):
        with pytest.raises(Corrupt):
            check_signed_text(changed, KEY.public)
    with pytest.raises(Corrupt):
        check_signed_text(page, SigningKey(b"x" * 32).public)


# Values

HOSTILE = '${file("/etc/passwd")}"\n} %{ if x }'


@settings(max_examples=30)
@given(
    project=st.text(min_size=1, max_size=60),
    value=st.text(st.characters(exclude_categories=["Cs"]), max_size=80) | st.just(HOSTILE),
)
def test_hostile_names_are_values_and_never_code(project: str, value: str) -> None:
    usual, hostile = USUAL, rendered(project=project, target="e${x}", env={"NOTE": value})
    differ = {name for name in usual if usual[name] != hostile[name]}
    assert differ == {VALUES, PAGE}, "no code depends on a name"
    values = json.loads(hostile[VALUES])
    assert (values["project"], values["environment"]["NOTE"]) == (project, value)
    assert re.fullmatch("[a-z][a-z0-9-]{0,21}", values["name"])
    assert not values["name"].endswith("-")


def test_names_that_differ_stay_different() -> None:
    targets = ["east", "East", "east-with-a-long-name-of-its-own", "east-with-a-long-name-of-its-owns"]
    names = [module(target=each).values["name"] for each in targets]
    assert len(set(names)) == len(targets)
    assert not module(project="internal", target="x").values["name"].startswith("internal-")


def test_what_terraform_makes_is_not_asked_of_people() -> None:
    values = module(secrets=("MAINSPRING_CATALOG", "MAINSPRING_ONLINE", "OPS_URL")).values
    assert values["secrets"] == ["OPS_URL"]
    assert values["environment"]["MAINSPRING_ALLOWED_HOSTS"] == "models.example.org,inside.example.org"
    assert values["command"]["gateway"] == ["up", "--contained", "--only", "gateway", "--only", "log"]
    assert values["where"] == ["--project", "/project", "--profile", "production"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"region": ""}, "region"),
        ({"region": "cn-north-1"}, "region"),
        ({"image": "registry.example.org/shop@sha256:" + "0f" * 32}, "ECR"),
        ({"image": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/shop:1"}, "digest"),
        ({"region": "eu-west-1"}, "in ECR of eu-west-1"),
        ({"gpus": 1}, "GPUs"),
        ({"profile": "a'; exit"}, "profile"),
        ({"replicas": (0, 4)}, "no gateway"),
        ({"cpu": 20.0}, "No task of Fargate"),
        ({"memory": 200 << 30}, "No task of Fargate"),
        ({"services": (Service(endpoint="late", model="late", deadline_ms=4e6),)}, "deadline of 4000 s"),
    ],
)
def test_what_the_cloud_cannot_have_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(Invalid, match=why) as refused:
        rendered(**changes)
    assert refused.value.fix


@pytest.mark.parametrize(
    "wrong",
    [
        {"certificate": ""}, {"hosts": []}, {"hosts": ["a b"]}, {"network": "10.0.0.0/8"}, {"network": "8.8.0.0/16"},
        {"clients": ["0.0.0.0/0"]}, {"clients": ["any"]},
        {"scrapers": ["0.0.0.0/0"]}, {"project_folder": "project"}, {"tables": ["*"]},
        {"notify": "ops"}, {"notify": "arn:aws:sqs:eu-central-1:123456789012:ops"},
        {"database_authority": "/a?b=c"}, {"database": "large"}, {"database_gib": (5, 10)}, {"database_gib": (20, 21)},
        {"zones": ("a", "a")}, {"keep_logs": 6}, {"keep_backups": 0},
    ],
    ids=str,
)  # fmt: skip
def test_options_that_are_wrong_or_open_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"write|keeps"):
        options(**wrong)


@pytest.mark.parametrize(
    ("cpu", "memory", "expected"),
    [
        (0.25, 400 << 20, (256, 512)), (0.25, 1 << 30, (256, 1024)), (0.25, 3 << 30, (512, 3072)),
        (0.3, 100 << 20, (512, 1024)), (1, (2 << 30) + 1, (1024, 3072)), (6, 17 << 30, (8192, 20480)),
        (16, 33 << 30, (16384, 40960)), (1, 50 << 30, (8192, 53248)),
    ],
)  # fmt: skip
def test_a_size_of_fargate_holds_what_is_asked(cpu: float, memory: int, expected: tuple[int, int]) -> None:
    assert fargate_size(cpu, memory) == expected


def test_every_file_of_a_module_is_delivered() -> None:
    folder = files("mainspring.deploy.terraform") / "aws"
    assert {each.name for each in folder.iterdir() if each.name.endswith(".tf")} | {IAM} == {
        name for name in rendered() if name.endswith(".tf")
    }


def test_a_second_deployment_shares_no_name() -> None:
    first, second = deployment(**PLACE), replace(deployment(**PLACE), target="west")
    target = TerraformTarget(options(), Path("never"), 10, (), KEY.sign)
    names = [json.loads(each.content)["name"] for made in (first, second) for each in target.render(made)
             if each.name == VALUES]  # fmt: skip
    assert names == ["shop-east", "shop-west"]


def test_gateways_are_as_many_as_replicas_say_also_after_a_change() -> None:
    """The service's own count is left to scaling, so scaling has to be there with one number of replicas, too."""
    made = module(replicas=(3, 3))
    [service] = [each for name, each in made.of("aws_ecs_service").items() if name.endswith("gateway")]
    assert service["lifecycle"] == [{"ignore_changes": ["desired_count"]}]
    for kind in ("aws_appautoscaling_target", "aws_appautoscaling_policy"):
        assert "count" not in made.of(kind)[f"{kind}.gateway"]
    assert (made.values["least"], made.values["most"]) == (3, 3)


def test_the_load_balancer_waits_longer_than_any_deadline_and_less_than_the_gateway() -> None:
    assert module().values["idle_timeout"] == 25
    assert "MAINSPRING_GATEWAY_IDLE_TIMEOUT" not in module().values["environment"]
    slow = module(services=(Service(endpoint="late", model="late", deadline_ms=59_500.0),)).values
    assert (slow["idle_timeout"], slow["environment"]["MAINSPRING_GATEWAY_IDLE_TIMEOUT"]) == (65, "70s")


def test_what_was_removed_does_not_hinder_what_is_made_again(made: Module) -> None:
    [database] = made.of("aws_db_instance").values()
    assert "random_id" in database["final_snapshot_identifier"]
    secrets = made.of("aws_secretsmanager_secret")
    assert {name for name, each in secrets.items() if "name" in each} == {
        name for name, each in secrets.items() if each.get("recovery_window_in_days") == "${local.recovery}"
    }
    assert json.loads(rendered({"protected": False})[VALUES])["protected"] is False


TOPIC = "arn:aws:sns:eu-central-1:123456789012:ops"


def alarm(endpoint: str = "late", share: float = 0.0144, **changes: Any) -> BurnAlarm:
    usual = {"about": "99.9% of requests answered over 30 days", "within_s": 0.0, "fewest": 5, "page": True}
    return BurnAlarm(**{"endpoint": endpoint, "share": share, "long_s": 3600, "short_s": 300, **usual, **changes})


def alarms(*given: BurnAlarm, notify: str = TOPIC, endpoints: tuple[str, ...] = ("late",)) -> dict[str, Any]:
    services = tuple(Service(endpoint=each, model=each) for each in endpoints)
    target = TerraformTarget(options(notify=notify), Path("never"), 10, (), KEY.sign, lambda: given)
    [text] = [each.content for each in target.render(deployment(**PLACE, services=services)) if each.name == VALUES]
    found: dict[str, Any] = json.loads(text)
    return {name: found[name] for name in ("failing", "slow", "burning")}


def test_an_objective_is_an_alarm_of_both_of_its_windows() -> None:
    found = alarms(alarm(), alarm(share=0.144, within_s=0.25), alarm(long_s=3 * 86_400, short_s=21_600, page=False))
    assert {name: (each["seconds"], each["share"], each["fewest"]) for name, each in found["failing"].items()} == {
        "failing-3600s-page-over-3600s": (3600, 0.0144, 5),
        "failing-3600s-page-over-300s": (300, 0.0144, 1),
    }
    assert {(each["seconds"], each["percentile"], each["within"]) for each in found["slow"].values()} == {
        (3600, "p85.6", 0.25), (300, "p85.6", 0.25),
    }  # fmt: skip
    assert {name: each["windows"] for name, each in found["burning"].items()} == {
        "failing-3600s-page": list(found["failing"]), "slow-250ms-3600s-page": list(found["slow"]),
    }  # fmt: skip
    assert alarms(alarm(), notify="") == {"failing": {}, "slow": {}, "burning": {}}


def test_alarms_of_several_endpoints_are_the_strictest_of_what_a_load_balancer_sees() -> None:
    given = (alarm(), alarm("fast", 0.00144), alarm("gone", 0.0001), alarm("fast", 0.144, within_s=0.25))
    found = alarms(*given, endpoints=("late", "fast"))
    assert {each["share"] for each in found["failing"].values()} == {0.00144}
    assert found["slow"] == {}, "the bound of one endpoint is none of another"


@given(st.floats(1e-6, 0.5), st.integers(1, 10**6), st.integers(0, 10**6))
def test_a_percentile_is_above_a_bound_just_where_too_many_are(share: float, total: int, slow: int) -> None:
    slow = min(slow, total)
    [window, _] = alarms(alarm(share=share, within_s=0.25))["slow"].values()
    percentile = float(window["percentile"].removeprefix("p")) / 100
    if abs(slow / total - share) > 1e-9:  # CloudWatch has ten digits
        assert (slow / total > share) == (1 - slow / total < percentile)


def test_what_is_rented_by_the_hour_has_a_name_to_be_priced_by() -> None:
    target = TerraformTarget(options(), Path("never"), 10, (), KEY.sign)
    made = {
        each.name: each.needs for each in target.render(deployment(**PLACE, replicas=(2, 6), cpu=0.5)) if each.needs
    }
    assert {name: (each.instance, each.count, each.most) for name, each in made.items()} == {
        "gateway.tf": ("aws/eu-central-1/fargate-512-1024", 2, 6),
        "worker.tf": ("aws/eu-central-1/fargate-1024-4096", 1, 0),
        "stores.tf": ("aws/eu-central-1/db.t4g.small", 2, 0),
    }
    assert "worker.tf" not in {each.name for each in target.render(deployment(**PLACE, worker=False)) if each.needs}
