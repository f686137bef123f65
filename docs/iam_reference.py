"""Writes docs/reference/iam.md: the statements of IAM that targets of the kind `terraform` give, with their reasons."""

from __future__ import annotations

from pathlib import Path

from mainspring.deploy.terraform.page import table_text
from mainspring.deploy.terraform.statements import statements

PAGE = Path(__file__).parent / "reference" / "iam.md"
_HEAD = """\
# Rights in AWS

<!-- Written by docs/iam_reference.py; a test fails if it is not current. -->

A [module of Terraform](../howto/terraform.md) gives these rights and no other. Its policies (`iam.tf`) and this page
are made of one table, in which a statement without a reason is refused, and so is a `*` without one. Each deployment
has such a page of its own, `iam.md`, with the SHA-256 of its policies and the
[signature](../howto/terraform.md#the-page-of-rights) of the installation.

"""


def page() -> str:
    """Return the page as it has to be."""
    return _HEAD + table_text(statements("aws"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
