"""Measures of access: authentication, keys, rights and approvals."""

from __future__ import annotations

from mainspring.core.time import DAY
from mainspring.delivery import approving
from mainspring.governance.evidence import State
from mainspring.operations.evidence.measuring import (
    YEAR,
    Measures,
    Outcome,
    count,
    days,
    gates_of,
    listed,
    served_models,
)
from mainspring.project import Project
from mainspring.security.model import Role

MEASURES = Measures()


@MEASURES.measure(
    "authentication",
    "Every route but the health probes and the log-in page needs a valid key, session or token.",
    test="e2e/test_planes.py::test_only_the_probes_and_the_door_answer_without_a_key",
)
def _authentication(project: Project) -> Outcome:
    now = project.wall.now()
    valid = [key for key in project.key_store.all() if key.revoked_at is None and key.expires_at > now]
    return State.HOLDS, f"{count(valid, 'valid API key')}; without one nothing is answered."


@MEASURES.measure(
    "key-lifetimes",
    "API keys expire, and are stored as an HMAC.",
    off_by="`keys create --expires` with a long time",
    test="unit/security/test_keys.py::test_a_key_counts_until_just_before_its_expiry",
)
def _key_lifetimes(project: Project) -> Outcome:
    now = project.wall.now()
    valid = [key for key in project.key_store.all() if key.revoked_at is None and key.expires_at > now]
    if not valid:
        return State.IDLE, "There is no valid API key."
    oldest = days(now - min(key.created_at for key in valid))
    long = [key for key in valid if key.expires_at - key.created_at > YEAR + DAY]
    told = f"{count(valid, 'valid key')}, the oldest {oldest} old"
    if long:
        return State.PARTLY, f"{told}; valid for more than a year: {len(long)}."
    return State.HOLDS, f"{told}; none is valid for more than a year."


@MEASURES.measure(
    "least-privilege",
    "Roles on the project or one of its resources decide what an account may do; a key's scopes bound it further.",
    off_by="API keys without an owner, which have every role",
    test="unit/console/test_permissions.py::test_who_administers_everything_else_gets_at_nothing_here",
)
def _least_privilege(project: Project) -> Outcome:
    now = project.wall.now()
    valid = [key for key in project.key_store.all() if key.revoked_at is None and key.expires_at > now]
    free = [key for key in valid if not key.owner]
    grants = project.accounts.grants()
    admins = sum(grant.role is Role.ADMINISTRATOR and grant.resource == "project" for grant in grants)
    accounts = count(project.accounts.all(), "account")
    told = f"{accounts}, {count(grants, 'granted role')}, {admins} of them administrator"
    if free:
        return (
            State.PARTLY,
            f"{told}; without an owner, hence with every role: {len(free)} of {count(valid, 'valid key')}.",
        )
    return State.HOLDS, f"{told}; every valid key has an owner."


@MEASURES.measure(
    "central-sign-in",
    "People sign in at the organisation's identity provider, and are out within a minute of their removal there.",
    off_by="no `[profiles.NAME.oidc]`",
    test="unit/console/test_sign_in.py::test_a_person_removed_at_the_provider_is_out_within_a_minute",
)
def _central_sign_in(project: Project) -> Outcome:
    sign_in = project.settings.sign_in
    if sign_in is None:
        return State.OFF, "The console is opened with API keys."
    return State.HOLDS, f"People sign in at {sign_in.issuer.url}."


@MEASURES.measure(
    "approvals",
    "A version goes live only after people other than its author approved it.",
    off_by="`approvals` of the profile, and gates without `approved`",
    test="integration/test_registry_life.py::test_a_key_that_the_author_made_approves_nothing_of_theirs",
)
def _approvals(project: Project) -> Outcome:
    needs = {
        model: approving.needed(gates_of(project, model), project.settings.approvals)
        for model in served_models(project)
    }
    if not needs:
        return State.IDLE, "No endpoint is declared."
    without = sorted(model for model, count in needs.items() if not count)
    if len(without) == len(needs):
        return State.OFF, f"No approval is needed for {listed(without)}."
    told = ", ".join(f"{model} {count}" for model, count in sorted(needs.items()))
    return (State.PARTLY if without else State.HOLDS), f"Approvals needed: {told}."
