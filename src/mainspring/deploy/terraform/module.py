"""Files of a module: fixed text, the rights that it gives, values, and the signed page of what each right is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Any

import msgspec

from mainspring.deploy.targets.model import Deployment
from mainspring.security.signing import signed_text

IAM, PAGE, VALUES = "iam.tf", "iam.md", "terraform.tfvars.json"
HOLDERS = "roles.tf"  # of the roles or accounts that have the rights


def module_files(
    cloud: str,
    deployment: Deployment,
    values: Mapping[str, Any],
    *,
    iam: str,
    page: str,
    sign: Callable[[bytes], bytes],
) -> dict[str, str]:
    """Return the files of a cloud's module by name.

    Args:
        values: Of the module's variables. Terraform reads them as they are, and never as code.
        iam: Content of the file that gives the rights.
        page: The rights and their reasons in Markdown.
        sign: Returns the signature of the installation.
    """
    module = files("mainspring.deploy.terraform") / cloud
    found = {each.name: each.read_text(encoding="utf-8") for each in module.iterdir() if each.name.endswith(".tf")}
    found[IAM] = iam
    found[VALUES] = msgspec.json.format(msgspec.json.encode(values)).decode() + "\n"
    about = {"project": deployment.project, "target": deployment.target, "region": deployment.region}
    lines = [f"- {name}: `{text}`" for name, text in about.items()]
    lines += [f"- SHA-256 of `{name}`: `{sha256(found[name].encode()).hexdigest()}`" for name in (IAM, HOLDERS)]
    text = "\n".join(["# Rights of this deployment\n", *lines, "", page])
    return {**dict(sorted(found.items())), PAGE: signed_text(text, sign)}
