"""A module of Terraform as a parser reads it, and the checks that it has to pass. Each returns what is wrong.

`terraform_CLOUD.json` has the arguments and attributes of the types that a module uses, as the provider of the version
that it names declares them: extracted from the bindings of CDK for Terraform (MPL 2.0).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import hcl2

from mainspring.deploy.terraform.module import IAM, PAGE, VALUES

Body = Mapping[str, Any]
_NAME = r"[A-Za-z_][A-Za-z0-9_-]*"
_REFERENCE = re.compile(
    rf"(?<![\w.])(?:(var|local)\.({_NAME})|((?:data\.|ephemeral\.)?)([a-z]+_[a-z0-9_]+)\.({_NAME})(?:\[[^\]]*\])?(?:\.({_NAME}))?)"
)
_META = {"count", "for_each", "depends_on", "lifecycle", "provider"}
_HERE = Path(__file__).parent


def _plain(value: Any) -> Any:
    """Return what the parser read, without the marks of quotes and blocks: `"text"`, and `${expression}` for code."""
    if isinstance(value, dict):
        return {
            _plain(name): _plain(each) for name, each in value.items() if name not in ("__is_block__", "__comments__")
        }
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value


@dataclass(frozen=True)
class Module:
    """The files of a module, by name, with the values of its variables."""

    texts: Mapping[str, str]
    values: Mapping[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Module:
        texts = {each.name: each.read_text() for each in sorted(folder.glob("*.tf"))}
        return cls(texts, json.loads((folder / "terraform.tfvars.json").read_text()))

    def changed(self, file: str, old: str, new: str) -> Module:
        """Return the module with a text replaced, which has to be there once at least."""
        assert old in self.texts[file], f"{file} has no {old!r}"
        return Module({**self.texts, file: self.texts[file].replace(old, new)}, self.values)

    @cached_property
    def parsed(self) -> list[dict[str, Any]]:
        return [_plain(_parse(each)) for each in self.texts.values()]

    def blocks(self, kind: str) -> Iterator[Any]:
        for each in self.parsed:
            yield from each.get(kind, [])

    def named(self, kind: str) -> dict[str, Body]:
        """Return blocks of two labels (`type.name`), or of one."""
        found: dict[str, Body] = {}
        for block in self.blocks(kind):
            for first, inner in block.items():
                if kind in ("resource", "data", "ephemeral"):
                    found.update({f"{first}.{name}": body for name, body in inner.items()})
                else:
                    found[first] = inner
        return found

    @cached_property
    def resources(self) -> dict[str, Body]:
        return self.named("resource")

    def of(self, kind: str) -> dict[str, Body]:
        """Return the resources of a type."""
        return {name: body for name, body in self.resources.items() if name.partition(".")[0] == kind}

    @cached_property
    def code(self) -> str:
        """The text outside of strings and comments, and what is interpolated in strings."""
        return "\n".join("".join(_code(each)) for each in self.texts.values())


_PARSED: dict[str, dict[str, Any]] = {}  # the same files are read by many tests


def _parse(text: str) -> dict[str, Any]:
    if text not in _PARSED:
        _PARSED[text] = hcl2.loads(text)
    return _PARSED[text]


_HEREDOC = re.compile(r"<<-?([A-Z]+)\n(.*?)\n\s*\1\n", re.DOTALL)
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)


def _code(text: str) -> Iterator[str]:
    text = _COMMENT.sub("", text)
    for heredoc in _HEREDOC.finditer(text):
        yield from (f" {each} " for each in re.findall(r"(?<!\$)\$\{([^}]*)\}", heredoc[2]))
    text = _HEREDOC.sub("", text)
    depth: list[str] = []  # of strings and interpolations
    at = 0
    while at < len(text):
        inside = bool(depth) and depth[-1] == '"'
        if inside and text[at] == "\\":
            at += 2
        elif inside and text.startswith(("$${", "%%{"), at):
            at += 3
        elif inside and text.startswith(("${", "%{"), at):
            depth.append("{")
            yield " "
            at += 2
        elif text[at] == '"':
            if inside:
                depth.pop()
                yield '""'
            else:
                depth.append('"')
            at += 1
        else:
            if not inside:
                if depth and text[at] in "{}":
                    if text[at] == "{":
                        depth.append("{")
                    else:
                        depth.pop()
                yield text[at]
            at += 1


def _schema() -> Mapping[str, Any]:
    return {
        name: each for path in _HERE.glob("terraform_*.json") for name, each in json.loads(path.read_text()).items()
    }


SCHEMA = _schema()


def changed_beside(cloud: str, made: Mapping[str, str], plain: Mapping[str, str]) -> set[str]:
    """Check that the files of a managed service have the whole module in `terraform/`, and those without the option
    nothing of it; return the names of the other files that differ."""
    folder = {each.name for each in (files("mainspring.deploy.terraform") / cloud).iterdir()}
    wanted = {name for name in folder if name.endswith(".tf")} | {IAM, PAGE, VALUES}
    assert {name.removeprefix("terraform/") for name in made if name.startswith("terraform/")} == wanted
    assert not [name for name in plain if name.startswith("terraform/")]
    return {name for name in plain if plain[name] != made[name]}


def references(module: Module) -> list[str]:
    """Each name that is used is declared, each attribute exists, and each variable is used and has a value."""
    variables, found = set(module.named("variable")), []
    local = {name for block in module.blocks("locals") for name in block}
    blocks = {f"{prefix}{name}" for kind, prefix in (("resource", ""), ("data", "data."), ("ephemeral", "ephemeral."))
              for name in module.named(kind)}  # fmt: skip
    used = set[str]()
    for kind, name, prefix, type_, block, attribute in _REFERENCE.findall(module.code):
        if kind:
            used.add(f"{kind}.{name}")
            known = variables if kind == "var" else local
            found += [] if name in known else [f"{kind}.{name} is not declared"]
        elif block in ("key", "value") and f'dynamic "{type_}"' in "\n".join(module.texts.values()):
            continue
        elif f"{prefix}{type_}.{block}" not in blocks:
            found.append(f"{prefix}{type_}.{block} is not declared")
        elif attribute and prefix != "ephemeral." and (types := SCHEMA.get(f"{prefix}{type_}")):
            known = {*types["arguments"], *types["attributes"]}
            found += [] if attribute in known else [f"{prefix}{type_} has no attribute {attribute}"]
    unused = {f"var.{each}" for each in variables} | {f"local.{each}" for each in local}
    found += [f"{each} is not used" for each in sorted(unused - used)]
    given = set(module.values)
    found += [f"variable {each} has no value" for each in sorted(variables - given)]
    return found + [f"the value {each} is of no variable" for each in sorted(given - variables)]


def arguments(module: Module) -> list[str]:
    """Each argument is known to the provider, and each that is required is there."""
    found = []
    for kind, prefix in (("resource", ""), ("data", "data.")):
        for name, body in module.named(kind).items():
            type_ = f"{prefix}{name.partition('.')[0]}"
            if type_ not in SCHEMA:
                found.append(f"{type_} is not known to the provider")
                continue
            given = {key: value for key, value in body.items() if key not in _META}
            found += [f"{prefix}{name}: {each}" for each in _fields(given, SCHEMA[type_]["arguments"])]
    return found


def _fields(given: Body, known: Mapping[str, Any]) -> Iterator[str]:
    dynamic = {name: each["content"] for block in given.get("dynamic", []) for name, each in block.items()}
    given = {**{name: each for name, each in given.items() if name != "dynamic"}, **dynamic}
    for name, field in known.items():
        if (field is True or (isinstance(field, dict) and field["required"])) and name not in given:
            yield f"no {name}"
    for name, value in given.items():
        if name not in known:
            yield f"unknown {name}"
        elif isinstance(known[name], dict):
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, dict):
                    yield from (f"{name}: {wrong}" for wrong in _fields(each, known[name]["fields"]))


def pinned(module: Module) -> list[str]:
    """Terraform's version has bounds, and providers have one version each."""
    found = []
    settings = next(module.blocks("terraform"))
    if not re.fullmatch(r">= \d+\.\d+\.\d+, < \d+\.\d+\.\d+", str(settings.get("required_version"))):
        found.append("required_version has no bounds")
    providers = {name: each for block in settings.get("required_providers", []) for name, each in block.items()}
    for name, each in providers.items():
        if not re.fullmatch(r"\d+\.\d+\.\d+", str(each.get("version"))):
            found.append(f"provider {name} has the version {each.get('version')}")
    used = {name.partition("_")[0] for name in [*module.resources, *module.named("data"), *module.named("ephemeral")]}
    found += [f"provider {each} has no version" for each in sorted(used - set(providers))]
    return found + [f"module {each} comes from elsewhere" for each in module.named("module")]


_NEVER = ("aws_internet_gateway", "aws_nat_gateway", "aws_eip", "aws_egress_only_internet_gateway", "aws_route",
          "aws_lambda_function_url", "aws_s3_bucket_acl", "aws_s3_bucket_website_configuration")  # fmt: skip


def private(module: Module) -> list[str]:
    """Nothing is reachable from the internet, and nothing reaches it."""
    found = [f"{name}: a way to the internet" for kind in _NEVER for name in module.of(kind)]
    code = "\n".join(module.texts.values()) + json.dumps(module.values)
    found += [f"{each}: everybody" for each in ("0.0.0.0/0", "::/0") if re.search(rf'"{re.escape(each)}"', code)]
    found += [f"{name}: not internal" for name, each in module.of("aws_lb").items() if each.get("internal") is not True]
    expected = {
        ("aws_subnet", "map_public_ip_on_launch"): False,
        ("aws_db_instance", "publicly_accessible"): False,
        **{
            ("aws_s3_bucket_public_access_block", each): True
            for each in ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
        },
    }
    for (kind, argument), value in expected.items():
        found += [f"{name}: {argument}" for name, body in module.of(kind).items() if body.get(argument) is not value]
    for name, body in module.of("aws_ecs_service").items():
        found += [f"{name}: assign_public_ip" for each in body["network_configuration"]
                  if each.get("assign_public_ip") is not False]  # fmt: skip
    for name, body in module.of("aws_security_group").items():
        found += [f"{name}: rules of its own" for each in ("ingress", "egress") if each in body]
    blocks = {_target(body["bucket"]) for body in module.of("aws_s3_bucket_public_access_block").values()}
    return found + [f"{name}: can be public" for name in module.of("aws_s3_bucket") if name not in blocks]


def _target(text: str) -> str:
    """Return the address that an expression is of."""
    return ".".join(text.removeprefix("${").removesuffix("}").split("[")[0].split(".")[:2])


_KEYS = {
    "aws_db_instance": ("kms_key_id", {"storage_encrypted": True}),
    "aws_efs_file_system": ("kms_key_id", {"encrypted": True}),
    "aws_secretsmanager_secret": ("kms_key_id", {}),
    "aws_cloudwatch_log_group": ("kms_key_id", {}),
}


def encrypted(module: Module) -> list[str]:
    """Each store names the key under which it is encrypted, keys are rotated, and connections are encrypted."""
    found = []
    for kind, (argument, also) in _KEYS.items():
        for name, body in module.of(kind).items():
            if not str(body.get(argument)).startswith("${aws_kms_key."):
                found.append(f"{name}: no key")
            found += [f"{name}: {each}" for each, value in also.items() if body.get(each) is not value]
    with_key = {
        _target(body["bucket"])
        for body in module.of("aws_s3_bucket_server_side_encryption_configuration").values()
        for rule in body["rule"]
        for each in rule["apply_server_side_encryption_by_default"]
        if each.get("sse_algorithm") == "aws:kms" and str(each.get("kms_master_key_id")).startswith("${aws_kms_key.")
    }
    found += [f"{name}: no key" for name in module.of("aws_s3_bucket") if name not in with_key]
    found += [f"{name}: not rotated" for name, body in module.of("aws_kms_key").items()
              if body.get("enable_key_rotation") is not True]  # fmt: skip
    for name, body in module.of("aws_lb_listener").items():
        if body.get("protocol") != "HTTPS" or "TLS13" not in str(body.get("ssl_policy")):
            found.append(f"{name}: no TLS")
    for name, body in module.of("aws_lb_target_group").items():
        found += [] if body.get("protocol") == "HTTPS" else [f"{name}: in clear behind the load balancer"]
    for name, body in module.of("aws_ecs_task_definition").items():
        for each in (each for volume in body["volume"] for each in volume.get("efs_volume_configuration", [])):
            if each.get("transit_encryption") != "ENABLED" or each["authorization_config"][0].get("iam") != "ENABLED":
                found.append(f"{name}: files in clear")
    parameters = [each for body in module.of("aws_db_parameter_group").values() for each in body["parameter"]]
    if {"name": "rds.force_ssl", "value": "1"} not in parameters:
        found.append("the database answers in clear")
    state = [each.get("s3", each) for block in module.blocks("terraform") for each in block.get("backend", [])]
    whole = bool(state) and all(each.get("encrypt") is True for each in state)
    return found if whole else [*found, "state in clear"]


def kept(module: Module) -> list[str]:
    """Logs have an end, data has backups, and neither is deleted by accident."""
    found = [f"{name}: kept for ever" for name, body in module.of("aws_cloudwatch_log_group").items()
             if body.get("retention_in_days") != "${var.keep_logs}"]  # fmt: skip
    expected: dict[tuple[str, str], Any] = {
        ("aws_db_instance", "deletion_protection"): "${var.protected}",
        ("aws_db_instance", "skip_final_snapshot"): False,
        ("aws_db_instance", "backup_retention_period"): "${var.keep_backups}",
        ("aws_s3_bucket", "force_destroy"): False,
        ("aws_lb", "enable_deletion_protection"): "${var.protected}",
    }
    for (kind, argument), value in expected.items():
        found += [f"{name}: {argument}" for name, body in module.of(kind).items() if body.get(argument) != value]
    states = [each.get("status") for body in module.of("aws_s3_bucket_versioning").values()
              for each in body["versioning_configuration"]]  # fmt: skip
    return found + ([] if states == ["Enabled"] else ["the bucket has no versions"])


_STORED = {"secret_string", "secret_binary", "password", "auth_token", "passwords", "master_password"}


def secret(module: Module) -> list[str]:
    """No secret is in the text or comes into the state: values are written only by write-only arguments."""
    found = [f"{name}: {each}" for name, body in module.resources.items() for each in sorted(_STORED & set(body))]
    found += [f"{name}: its value is in the state" for name in module.resources if name.startswith("random_password.")]
    found += [f"data.{name}: its value is in the state" for name in module.named("data")
              if name.startswith("aws_secretsmanager_secret_version.")]  # fmt: skip
    for name, body in module.resources.items():
        for argument, value in body.items():
            if "ephemeral." in json.dumps(value) and not argument.endswith("_wo"):
                found.append(f"{name}: {argument} keeps what is ephemeral")
    for block in (*module.blocks("locals"), *module.named("output").values()):
        found += ["a local or an output has what is ephemeral"] if "ephemeral." in json.dumps(block) else []
    return found


def tagged(module: Module) -> list[str]:
    """All resources have the tags of the project and the target."""
    tags = [each.get("tags", {}) for block in module.blocks("provider") for name, body in block.items() if name == "aws"
            for each in body.get("default_tags", [])]  # fmt: skip
    wanted = {"Project": "${var.project}", "Target": "${var.target}", "ManagedBy": "mainspring"}
    return [] if tags == [wanted] else ["no tags of the project and the target"]


def confined(module: Module) -> list[str]:
    """Containers run without root, capabilities, a root file system to write to, or commands from outside."""
    found = [f"{name}: enable_execute_command" for name, body in module.of("aws_ecs_service").items()
             if body.get("enable_execute_command") is not False]  # fmt: skip
    [containers] = [block["containers"] for block in module.blocks("locals") if "containers" in block]
    for argument, value in (
        ("user", '"10001:10001"'),
        ("readonlyRootFilesystem", "true"),
        ("linuxParameters", '{capabilities={drop=["ALL"]}}'),
    ):
        given = re.sub(r"\s+", "", str(containers))
        if given.count(f"{argument}={value}".replace(" ", "")) != given.count("image=var.image"):
            found.append(f"a container has another {argument}")
    return found


CHECKS: tuple[Callable[[Module], list[str]], ...] = (
    references, arguments, pinned, private, encrypted, kept, secret, tagged, confined
)  # fmt: skip
