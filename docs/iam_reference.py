"""Writes docs/reference/iam.md: the rights that modules of Terraform give in each cloud, with their reasons."""

from __future__ import annotations

import re
from pathlib import Path

from mainspring.deploy.terraform.grants import grants, grants_page
from mainspring.deploy.terraform.page import table_text
from mainspring.deploy.terraform.statements import statements

PAGE = Path(__file__).parent / "reference" / "iam.md"
_HEAD = """\
# Rights in AWS, Google Cloud and Azure

<!-- Written by docs/iam_reference.py; a test fails if it is not current. -->

A module of Terraform gives these rights and no other, whether it is [all there is](../howto/terraform.md) or stands
[beside Vertex AI or Azure ML](../howto/managed-clouds.md). Its `iam.tf` and this page are made of one table, in which a
right without a reason is refused, and so is a broad one without a second reason. Each deployment has such a page of its
own, `iam.md`, with the SHA-256 of its policies and the [signature](../howto/terraform.md#the-page-of-rights) of the
installation.

"""


def page() -> str:
    """Return the page as it has to be."""
    clouds = {
        "AWS": table_text(statements("aws")),
        "Google Cloud": grants_page(grants("google")),
        "Azure": grants_page(grants("azure")),
    }
    parts = (f"## {name}\n\n" + re.sub("^##", "###", text, flags=re.MULTILINE) for name, text in clouds.items())
    return _HEAD + "\n".join(each.rstrip() + "\n" for each in parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
