"""The table of grants: a role for everything or everybody, or without its reason, cannot be read."""

from __future__ import annotations

import pytest

from mainspring.deploy.terraform.grants import grants_page, read

ROW = """\
[[grant]]
name = "images"
who = "The agent"
role = "roles/artifactregistry.reader"
on = "the repository"
resource = "google_artifact_registry_repository_iam_member"
arguments = { repository = "var.repository", member = "local.agent" }
why = "It fetches the image."
code = ["model.json"]
"""


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('why = "It fetches the image."', 'why = ""', "has no why"),
        ('code = ["model.json"]', "code = []", "has no code"),
        ('on = "the repository"', 'on = ""', "has no on"),
        *(
            ("roles/artifactregistry.reader", role, "which is for everything")
            for role in ("roles/owner", "roles/editor", "roles/viewer", "Owner", "Contributor", "Reader")
        ),
        ("roles/artifactregistry.reader", "roles/artifactregistry.admin", "no reason for it in `broad`"),
        ("roles/artifactregistry.reader", "Monitoring Contributor", "no reason for it in `broad`"),
        ("local.agent", '\\"allUsers\\"', "is for everybody"),
        ("local.agent", '\\"allAuthenticatedUsers\\"', "is for everybody"),
        ("code =", 'permissions = ["aiplatform.*"]\ncode =', "has the permission 'aiplatform.*'"),
        ("code =", 'broad = "b"\ncode =', "and none"),
        ("code =", 'each = "var.a"\nwhen = "var.b"\ncode =', "`each` and `when`"),
        ("code =", 'reason = "b"\ncode =', "unknown field"),
        ('"]\n', f'"]\n{ROW}', "two grants"),
    ],
)
def test_a_grant_that_is_too_wide_or_without_its_reason_is_refused(old: str, new: str, why: str) -> None:
    assert [each.name for each in read(ROW)] == ["images"]
    with pytest.raises(ValueError, match=why):
        read(ROW.replace(old, new, 1))


def test_a_broad_role_says_on_the_page_why_it_is_given() -> None:
    row = ROW.replace("registry.reader", "registry.admin").replace(
        "code =", 'broad = "Nothing less is to be had."\ncode ='
    )
    assert "Broad: Nothing less is to be had.\n\n- gives: `roles/artifactregistry.admin`\n" in grants_page(read(row))
