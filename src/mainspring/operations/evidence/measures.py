"""Measures of protection: what each is, by what it is off, which test shows it, and how it stands in an installation.

Frameworks refer to them by name. A measurement changes nothing and appends nothing to the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized

from mainspring.core import sandbox
from mainspring.core.errors import MainspringError, NotFound
from mainspring.core.settings import Address, Tls
from mainspring.core.time import DAY, format_duration
from mainspring.data.model import Source
from mainspring.delivery import approving, routing
from mainspring.features.model import SEALED
from mainspring.governance.evidence import Measure, Measured, State
from mainspring.ledger.model import PREDICTIONS
from mainspring.operations.auditing import anchored, verdict_of
from mainspring.operations.doctor import examine
from mainspring.operations.encryption import not_as_set
from mainspring.operations.encryption import state as keys_of_data
from mainspring.project import Project
from mainspring.registry.model import ModelVersion
from mainspring.security.envelopes import MAGIC
from mainspring.security.model import Role
from mainspring.training.gate_kinds import Gate

YEAR = 365 * DAY
Outcome = tuple[State, str]
_Check = Callable[[Project], Outcome]
_CHECKS: dict[str, tuple[Measure, _Check]] = {}


def names() -> tuple[str, ...]:
    """Return the names of all measures."""
    return tuple(_CHECKS)


def described() -> tuple[Measure, ...]:
    """Return all measures."""
    return tuple(measure for measure, _ in _CHECKS.values())


def measured(project: Project, wanted: tuple[str, ...]) -> Mapping[str, Measured]:
    """Return measures as they are now. A check that cannot be made fails, and says why."""
    found = {}
    for name in wanted:
        measure, check = _CHECKS[name]
        try:
            state, text = check(project)
        except MainspringError as error:
            state, text = State.FAILS, error.what
        found[name] = Measured(measure, state, text)
    return found


def _measure(name: str, what: str, *, off_by: str = "", test: str = "") -> Callable[[_Check], _Check]:
    def add(check: _Check) -> _Check:
        _CHECKS[name] = Measure(name, what, off_by, test), check
        return check

    return add


# Access


@_measure(
    "authentication",
    "Every route but the health probes and the log-in page needs a valid key, session or token.",
    test="e2e/test_planes.py::test_only_the_probes_and_the_door_answer_without_a_key",
)
def _authentication(project: Project) -> Outcome:
    now = project.wall.now()
    valid = [key for key in project.key_store.all() if key.revoked_at is None and key.expires_at > now]
    return State.HOLDS, f"{_count(valid, 'valid API key')}; without one nothing is answered."


@_measure(
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
    oldest = _days(now - min(key.created_at for key in valid))
    long = [key for key in valid if key.expires_at - key.created_at > YEAR + DAY]
    told = f"{_count(valid, 'valid key')}, the oldest {oldest} old"
    if long:
        return State.PARTLY, f"{told}; valid for more than a year: {len(long)}."
    return State.HOLDS, f"{told}; none is valid for more than a year."


@_measure(
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
    told = (
        f"{_count(project.accounts.all(), 'account')}, {_count(grants, 'granted role')}, {admins} of them administrator"
    )
    if free:
        return (
            State.PARTLY,
            f"{told}; without an owner, hence with every role: {len(free)} of {_count(valid, 'valid key')}.",
        )
    return State.HOLDS, f"{told}; every valid key has an owner."


@_measure(
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


@_measure(
    "approvals",
    "A version goes live only after people other than its author approved it.",
    off_by="`approvals` of the profile, and gates without `approved`",
    test="integration/test_registry_life.py::test_a_key_that_the_author_made_approves_nothing_of_theirs",
)
def _approvals(project: Project) -> Outcome:
    needs = {
        model: approving.needed(_gates(project, model), project.settings.approvals) for model in _served_models(project)
    }
    if not needs:
        return State.IDLE, "No endpoint is declared."
    without = sorted(model for model, count in needs.items() if not count)
    if len(without) == len(needs):
        return State.OFF, f"No approval is needed for {_listed(without)}."
    told = ", ".join(f"{model} {count}" for model, count in sorted(needs.items()))
    return (State.PARTLY if without else State.HOLDS), f"Approvals needed: {told}."


# Records of acts


@_measure(
    "audit-log",
    "Every effect is an event of a Merkle log with signed heads: a changed, deleted, inserted or moved event is found.",
    test="integration/test_audit_tampering.py::test_a_log_is_whole_and_each_kind_of_tampering_is_found",
)
def _audit_log(project: Project) -> Outcome:
    verdict = verdict_of(project)
    if verdict.damage:
        return State.FAILS, f"{len(verdict.damage)} findings: {verdict.damage[0].what}"
    if not verdict.events:
        return State.IDLE, "The log has no event yet."
    return State.HOLDS, f"All {verdict.events:,} events were verified now; {verdict.anchors} anchored heads agree."


@_measure(
    "audit-anchors",
    "Heads of the log are kept where who can write to the catalog cannot, so that a replaced log is found.",
    off_by="no `audit_anchors`",
    test="integration/test_audit_tampering.py::test_a_catalog_that_goes_back_is_found_by_an_anchor",
)
def _audit_anchors(project: Project) -> Outcome:
    if not project.settings.audit_anchors:
        return State.OFF, "Heads are kept in the state folder alone."
    wrong = [each for each in anchored(project) if each.problem]
    if wrong:
        return State.FAILS, f"{wrong[0].place}: {wrong[0].problem}"
    return State.HOLDS, f"Heads are kept at {len(project.settings.audit_anchors)} further places."


@_measure(
    "prediction-log",
    "Every prediction is kept with the version, the features and the answer, and can be replayed.",
    off_by="`share` below 1 of an endpoint's `log`",
    test="integration/test_replay_command.py::test_one_prediction_or_a_sample",
)
def _prediction_log(project: Project) -> Outcome:
    endpoints = project.definitions.endpoints
    if not endpoints:
        return State.IDLE, "No endpoint is declared."
    part = sorted(name for name, each in endpoints.items() if each.log.share < 1)
    newest = project.predictions.recent(limit=1)
    told = "there is a newest prediction" if newest else "there is no prediction yet"
    if part:
        return State.PARTLY, f"{_listed(part)} log a share of their predictions; {told}."
    return State.HOLDS, f"All predictions of {_count(endpoints, 'endpoint')} are logged; {told}."


# Models


@_measure(
    "signed-models",
    "A model is loaded only if its files are those that this installation signed.",
    test="unit/registry/test_bundles.py::test_one_changed_byte_is_noticed",
)
def _signed_models(project: Project) -> Outcome:
    versions = project.versions.all()
    for version in versions:
        project.bundles.load(version.digest)
    if not versions:
        return State.IDLE, "No version is registered."
    return State.HOLDS, f"Signature and hashes of {_count(versions, 'version')}, all that there are, were verified now."


@_measure(
    "gates",
    "A version goes live only if it passes the gates that its model declares.",
    off_by="a model without gates",
    test="unit/delivery/test_promote.py::test_the_numbers_are_in_the_audit_log_before_anything_moves",
)
def _gates_passed(project: Project) -> Outcome:
    models = _served_models(project)
    if not models:
        return State.IDLE, "No endpoint is declared."
    without = [model for model in models if not _gates(project, model)]
    if len(without) == len(models):
        return State.OFF, f"No gates are declared for {_listed(without)}."
    live, judged = _champions(project), []
    for champion in live:
        newest = project.evaluations.newest(champion.model, champion.version)
        if newest and newest[0].promoted:
            judged.append(f"{champion.model}:{champion.version} passed {_count(newest[0].results, 'gate')}")
    told = f"{', '.join(judged) or 'no live version was judged'}"
    if without:
        return State.PARTLY, f"{told}; without gates: {_listed(without)}."
    if not live:
        return State.IDLE, "No version is live."
    return (State.HOLDS if len(judged) == len(live) else State.PARTLY), f"{told}, of {_count(live, 'live version')}."


@_measure(
    "lineage",
    "A version names its run, code, features and dataset commit, and can be trained again from them.",
    test="integration/test_reproduce.py::test_what_cannot_be_made_again_is_said",
)
def _lineage(project: Project) -> Outcome:
    live = _champions(project)
    if not live:
        return State.IDLE, "No version is live."
    unknown = [
        f"{each.model}:{each.version}" for each in live if not project.bundles.load(each.digest).manifest.dataset_commit
    ]
    if unknown:
        return State.PARTLY, f"The data of {_listed(unknown)} is unknown here."
    return State.HOLDS, f"Run, code and dataset commit of {_count(live, 'live version')} are known."


@_measure(
    "model-cards",
    "A version has a card: intended use, limits, data, measured quality with intervals, and what is missing.",
    off_by="no `cards/MODEL.md`",
    test="integration/test_cards.py::test_what_is_missing_is_a_gap_and_never_an_error",
)
def _model_cards(project: Project) -> Outcome:
    from mainspring.operations.models.cards import card_of

    live = _champions(project)
    if not live:
        return State.IDLE, "No version is live."
    lacking = [f"{each.model}:{each.version}" for each in live if not card_of(project, each).complete]
    if not lacking:
        return State.HOLDS, f"Complete: those of {_count(live, 'live version')}."
    return State.PARTLY, f"Not complete: {_listed(lacking)}."


@_measure(
    "explanations",
    "A prediction is explained by the contributions of its inputs, and replayed with what it was computed from.",
    off_by="an endpoint that logs a share of its predictions, or leaves personal values out",
    test="integration/test_explain_command.py::test_a_served_prediction_and_its_model_are_explained",
)
def _explanations(project: Project) -> Outcome:
    endpoints = project.definitions.endpoints
    if not endpoints:
        return State.IDLE, "No endpoint is declared."
    left_out = sorted(
        name for name, each in endpoints.items() if each.log.personal == "leave out" or each.log.share < 1
    )
    kept = sorted(name for name, each in endpoints.items() if each.log.explanations)
    told = f"{_count(endpoints, 'endpoint')}; explained and kept each day: {_listed(kept) or 'none'}"
    if left_out:
        return State.PARTLY, f"{told}; not every prediction of {_listed(left_out)} can be explained."
    return State.HOLDS, f"{told}; the others on request."


@_measure(
    "unusual-rows",
    "Rows that are unlike the training rows are flagged, refused or answered by a fallback.",
    off_by="an endpoint without `unusual`",
    test="unit/serving/test_screening.py::test_a_request_with_an_unusual_row_is_refused_alone",
)
def _unusual_rows(project: Project) -> Outcome:
    endpoints = project.definitions.endpoints
    if not endpoints:
        return State.IDLE, "No endpoint is declared."
    screened = sorted(f"{name} ({each.unusual.then})" for name, each in endpoints.items() if each.unusual)
    if not screened:
        return State.OFF, "No endpoint looks for them."
    state = State.HOLDS if len(screened) == len(endpoints) else State.PARTLY
    return state, f"{_listed(screened)}, of {_count(endpoints, 'endpoint')}."


@_measure(
    "quotas",
    "Callers have limits of rows, requests or money, and get rounded numbers, the largest classes or the class alone.",
    off_by="an endpoint without `quotas` and `outputs`",
    test="unit/serving/test_quotas.py::test_a_refusal_says_when_and_what_is_left_and_counts_nothing",
)
def _quotas(project: Project) -> Outcome:
    endpoints = project.definitions.endpoints
    if not endpoints:
        return State.IDLE, "No endpoint is declared."
    limited = sorted(name for name, each in endpoints.items() if each.quotas)
    shaped = sorted(name for name, each in endpoints.items() if each.outputs)
    if not limited and not shaped:
        return State.OFF, "No endpoint has a quota, and each gives all of its numbers."
    state = State.HOLDS if len(limited) == len(shaped) == len(endpoints) else State.PARTLY
    return state, f"Quotas: {_listed(limited) or 'none'}; less than all numbers: {_listed(shaped) or 'none'}."


@_measure(
    "fairness",
    "Groups of people are compared, on held-out rows and live, and a gate can require a limit.",
    off_by="a model without groups",
    test="unit/delivery/test_fairness.py::test_the_bound_decides_and_more_rows_bring_it_nearer",
)
def _fairness(project: Project) -> Outcome:
    from mainspring.operations.fairness import declared_groups

    models = _served_models(project)
    if not models:
        return State.IDLE, "No endpoint is declared."
    compared = [model for model in models if declared_groups(project, model)]
    if not compared:
        return State.OFF, "No model declares groups to compare."
    state = State.HOLDS if len(compared) == len(models) else State.PARTLY
    return state, f"Groups are declared for {_listed(compared)}, of {_count(models, 'served model')}."


@_measure(
    "monitoring",
    "Drift, quality and service of each endpoint are watched, and a departure is an incident.",
    off_by="`mainspring up` without traffic or worker",
    test="integration/test_monitoring.py::test_two_days_of_predictions_and_their_late_labels",
)
def _monitoring(project: Project) -> Outcome:
    if not project.definitions.endpoints:
        return State.IDLE, "No endpoint is declared."
    wrong = _failing(project, "monitor")
    if wrong:
        return State.FAILS, wrong
    watched = {each.endpoint: each.ran_at for each in project.incidents.parts() if each.endpoint}
    if not watched:
        return State.IDLE, "The monitor has not run yet."
    for_us = project.wall.now() - min(watched.values())
    ago = format_duration(max(for_us // 1_000_000, 0) * 1_000_000)
    open_ = _count(project.incidents.open(), "open incident")
    return State.HOLDS, f"{_count(watched, 'endpoint')}, the last pass at most {ago} ago; {open_}."


@_measure(
    "rollback",
    "The version before goes live again by one command, and a rollout goes back by itself on evidence of harm.",
    test="unit/delivery/test_promote.py::test_a_rollback_goes_to_the_version_before",
)
def _rollback(project: Project) -> Outcome:
    live = _champions(project)
    if not live:
        return State.IDLE, "No version is live."
    first = [each.model for each in live if not any(move.old for move in project.versions.moves(each.model))]
    if first:
        return State.PARTLY, f"There is no version before of {_listed(first)}."
    return State.HOLDS, f"There is one before of {_count(live, 'live version')}."


# Data


@_measure(
    "encryption-in-transit",
    "Planes that other machines reach speak TLS: 1.3, and 1.2 where a setting allows it.",
    off_by="no `gateway_tls_cert`, `control_tls_cert`",
    test="integration/test_tls.py::test_plain_http_is_not_answered",
)
def _in_transit(project: Project) -> Outcome:
    settings = project.settings
    planes: list[tuple[str, Address, Tls | None]] = [
        ("gateway", settings.gateway, settings.gateway_tls),
        ("console", settings.control, settings.control_tls),
    ]
    if settings.grpc is not None:
        planes.append(("gRPC", settings.grpc, settings.gateway_tls))
    clear = [name for name, address, tls in planes if tls is None and not address.loopback]
    if clear:
        return State.OFF, f"In clear, and not on loopback: {_listed(clear)}."
    wrong = _failing(project, "certificates")
    if wrong:
        return State.FAILS, wrong
    told = [f"{name} {'by TLS' if tls is not None else 'on loopback'}" for name, _, tls in planes]
    return State.HOLDS, f"{', '.join(told)}."


@_measure(
    "encryption-of-personal-values",
    "Personal values of predictions are encrypted under data keys that a key service wraps.",
    test="unit/ledger/test_sealing.py::test_what_is_hidden_is_nowhere_and_is_revealed_whole",
)
def _personal_values(project: Project) -> Outcome:
    found = keys_of_data(project)
    keys = [each for each in found.keys if each.purpose == PREDICTIONS]
    if not keys:
        return State.IDLE, "No value was encrypted yet."
    if project.settings.encryption.text == "file:":
        return State.PARTLY, f"{_count(keys, 'data key')}, which open; the master key is in the same state folder."
    return State.HOLDS, f"{_count(keys, 'data key')}, which open; the master key: {found.service}."


@_measure(
    "secrets-of-the-catalog",
    "API keys are in the catalog as keyed hashes, and tokens of identity providers encrypted.",
    test="integration/test_catalog_secrets.py::test_no_secret_is_in_a_byte_of_the_catalog",
)
def _catalog_secrets(project: Project) -> Outcome:
    keys, sessions = project.key_store.all(), project.user_sessions.all()
    clear = [each for each in sessions if not each.sealed.startswith(MAGIC)]
    if clear:
        return State.FAILS, f"Tokens of {_count(clear, 'session')} are no envelopes: end these sessions."
    return State.HOLDS, f"{_count(keys, 'key')} as hashes, tokens of {_count(sessions, 'session')} in envelopes."


@_measure(
    "encryption-of-models",
    "Bundles are encrypted where they are stored.",
    off_by="`blobs_encrypted = false`",
    test="unit/registry/test_sealed.py::test_the_store_has_ciphertext_and_readers_have_files",
)
def _bundles_encrypted(project: Project) -> Outcome:
    if not project.settings.blobs_encrypted:
        return State.OFF, "New bundles are stored in clear."
    return State.HOLDS, "New bundles are encrypted."


@_measure(
    "encryption-of-features",
    "States in the online store are encrypted, and entities have pseudonyms there.",
    off_by="`online_encrypted = false`",
    test="unit/features/test_sealed_online.py::test_no_file_of_any_store_has_keys_or_values",
)
def _states_encrypted(project: Project) -> Outcome:
    if not project.settings.online_encrypted:
        return State.OFF, "States are stored in clear."
    clear = [each for each in project.stored_online.views() if not each.startswith(SEALED)]
    if clear:
        return State.PARTLY, f"States are in clear in {_listed(clear)}, until these views are materialised or tidied."
    return State.HOLDS, "States and keys of entities are encrypted."


@_measure(
    "encryption-of-personal-columns",
    "Columns of the lake that are marked personal are encrypted; keys of entities are not.",
    off_by="`pii_encrypted = false`",
    test="integration/test_erase.py::test_personal_columns_are_in_no_file_and_everything_is_as_in_clear",
)
def _columns_encrypted(project: Project) -> Outcome:
    if not project.settings.pii_encrypted:
        return State.OFF, "New rows are stored in clear."
    behind = not_as_set(project)
    if behind:
        return State.PARTLY, f"Rows from before are in clear in {_listed(behind)}: `mainspring encryption rewrite`."
    return State.HOLDS, "Marked columns are encrypted in all rows of newest versions."


@_measure(
    "key-rotation",
    "Master keys and data keys are renewed without downtime.",
    off_by="`mainspring encryption rotate` is not run",
    test="unit/security/test_data_keys.py::test_rotation_of_the_master_key_wraps_again_and_old_data_opens",
)
def _key_rotation(project: Project) -> Outcome:
    found = keys_of_data(project)
    if not found.keys:
        return State.IDLE, "There is no data key yet."
    behind = sum(key.behind for key in found.keys)
    if behind:
        return (
            State.FAILS,
            f"{_count(range(behind), 'data key')} under an older master key: a rotation was interrupted.",
        )
    newest = {key.purpose: key.created_at for key in sorted(found.keys, key=lambda key: key.number)}
    age = project.wall.now() - min(newest.values())
    told = f"The oldest data key in use is {_days(age)} old."
    return (State.PARTLY if age > YEAR else State.HOLDS), told


@_measure(
    "private-files",
    "The state folder's secrets and databases are readable by their owner alone.",
    test="e2e/test_planes.py::test_files_of_the_state_are_their_owners_alone_while_it_is_up",
)
def _private_files(project: Project) -> Outcome:
    wrong = _failing(project, "private files")
    return (State.FAILS, wrong) if wrong else (State.HOLDS, "No secret is readable by others.")


@_measure(
    "personal-columns",
    "Columns that identify a person are marked; their values are withheld but by policy, and each look is an event.",
    off_by="a source without `pii`",
    test=(
        "integration/test_personal_values.py::test_the_quarantine_shows_no_person_until_it_is_asked_to_and_audits_that"
    ),
)
def _personal_columns(project: Project) -> Outcome:
    sources = project.definitions.sources.values()
    if not sources:
        return State.IDLE, "No source is declared."
    marked = sum(len(source.pii) for source in sources)
    if not marked:
        return State.OFF, f"No column is marked, in {_count(sources, 'source')}."
    return State.HOLDS, f"Marked columns: {marked}, of {_count([each for each in sources if each.pii], 'source')}."


@_measure(
    "retention",
    "Predictions are deleted after a time that is set.",
    off_by="no `keep_predictions`",
    test="unit/ledger/test_upkeep.py::test_predictions_before_an_instant_are_removed_and_no_others",
)
def _retention(project: Project) -> Outcome:
    kept = project.settings.keep_predictions_us
    if kept is None:
        return State.OFF, "Predictions are kept for ever."
    return State.HOLDS, f"Predictions are kept for {format_duration(kept)}."


@_measure(
    "retention-of-rows",
    "Rows with personal values are deleted from every version, or lose these, after a time by purpose.",
    off_by="a source with `pii`, without a `retention` of its rows or of all these columns",
    test="integration/test_retention.py::test_rows_past_their_time_are_in_no_byte_of_any_store",
)
def _retention_of_rows(project: Project) -> Outcome:
    sources = [source for source in project.definitions.sources.values() if source.pii]
    if not sources:
        return State.IDLE, "No column is marked as personal."
    if any(not each.entity and each.done_at is None for each in project.erasures.all()):
        return State.FAILS, "A deletion began and did not end: run `mainspring retention`."
    unlimited = sorted(source.name for source in sources if not _ends(source))
    if len(unlimited) == len(sources):
        return State.OFF, "Personal values are kept for ever."
    if unlimited:
        return State.PARTLY, f"Kept for ever: personal values of {', '.join(unlimited)}."
    return State.HOLDS, f"Times are declared for {_count(sources, 'source')} with personal columns."


def _ends(source: Source) -> bool:
    """Return whether each personal value of a source is removed at some time."""
    of_rows = any(not each.columns for each in source.retentions)
    return of_rows or {*source.pii} <= {name for each in source.retentions for name in each.columns}


@_measure(
    "published-aggregates",
    "Aggregates are published with differential privacy for subjects, from a budget that cannot be overspent.",
    off_by="no source with `privacy`",
    test="unit/operations/test_publishing.py::test_one_subject_changes_the_exact_numbers_by_no_more_than_the_noise_covers",
)
def _published_aggregates(project: Project) -> Outcome:
    budgets = {name: each.privacy for name, each in project.definitions.sources.items() if each.privacy is not None}
    if not budgets:
        return State.IDLE, "No source declares a budget, so nothing is published by `mainspring data publish`."
    spent = [
        f"{name} {project.privacy_budgets.spent(name) / 1e6:g} of {each.budget:g}" for name, each in budgets.items()
    ]
    return State.HOLDS, f"Spent epsilon: {', '.join(spent)}."


@_measure(
    "consent",
    "Rows of people who had not consented to the purpose, or had withdrawn by the end of the data, take no part.",
    off_by="observations without `consent`",
    test="unit/training/test_consent.py::test_who_has_not_consented_is_left_out",
)
def _consent(project: Project) -> Outcome:
    models = project.definitions.models.values()
    if not models:
        return State.IDLE, "No model is declared."
    asking = [model for model in models if model.observations.consent is not None]
    if not asking:
        return State.OFF, f"No consent is asked for, in {_count(models, 'model')}."
    purposes = ", ".join(sorted({each.observations.consent.purpose for each in asking if each.observations.consent}))
    told = f"Models that ask for consent: {len(asking)} of {len(models)} ({purposes})."
    return (State.HOLDS if len(asking) == len(models) else State.PARTLY), told


@_measure(
    "data-quality",
    "Rows that break a source's rules go to its quarantine with the reason, and into no feature.",
    off_by="a source without `checks`",
    test="unit/data/test_ingest.py::test_a_row_has_all_its_reasons",
)
def _data_quality(project: Project) -> Outcome:
    sources = project.definitions.sources
    if not sources:
        return State.IDLE, "No source is declared."
    without = sorted(name for name, source in sources.items() if not source.checks)
    rules = sum(len(source.checks) for source in sources.values())
    if len(without) == len(sources):
        return State.OFF, f"No rule, in {_count(sources, 'source')}."
    told = f"Rules: {rules}, in {len(sources) - len(without)} of {_count(sources, 'source')}"
    return (State.PARTLY, f"{told}; without: {_listed(without)}.") if without else (State.HOLDS, f"{told}.")


@_measure(
    "erasure",
    "A person is erased from tables, features, predictions and encrypted copies, with a signed receipt.",
    test="integration/test_erase.py::test_after_an_erasure_no_byte_of_any_store_is_the_subjects",
)
def _erasure(project: Project) -> Outcome:
    erasures = [each for each in project.erasures.all() if each.entity]  # those of a retention are of no entity
    unfinished = [each for each in erasures if each.done_at is None]
    if unfinished:
        return State.FAILS, f"{_count(unfinished, 'erasure')} began and did not end: run `mainspring erase` again."
    told = f"Erasures with a receipt: {len(erasures)}." if erasures else "Nobody was erased yet."
    return (
        State.PARTLY,
        f"{told} Messages in Kafka and Kinesis, states of stream endpoints and files of jobs are not reached.",
    )


@_measure(
    "subject-access",
    "What is known of a person in tables, features, predictions and the audit log is exported.",
    test="integration/test_erase.py::test_after_an_erasure_no_byte_of_any_store_is_the_subjects",
)
def _subject_access(_: Project) -> Outcome:
    return State.HOLDS, "`mainspring subject export` writes an archive; the export is an audit event."


@_measure("backups", "Copies of what cannot be made again exist, and are young.")
def _backups(_: Project) -> Outcome:
    return State.OPEN, "Mainspring makes no backups, and does not know of any."


# The installation


@_measure(
    "isolation",
    "Code of models and of feature functions reaches no state, network or other process.",
    off_by='`isolation = "off"`, or a kernel without Landlock and seccomp',
    test="unit/core/test_sandbox.py::test_a_hostile_model_gets_nothing",
)
def _isolation(project: Project) -> Outcome:
    mode, missing = project.settings.isolation.mode, sorted(sandbox.ALL - sandbox.available())
    if mode == sandbox.OFF:
        return State.OFF, "Such code has the rights of this user."
    if not missing:
        return State.HOLDS, "This machine confines such code completely."
    if mode == sandbox.AVAILABLE:
        return State.PARTLY, f"This machine cannot close {_listed(missing)}."
    return State.FAILS, f"It is required, and this machine cannot close {_listed(missing)}."


@_measure(
    "plain-formats",
    "Models are formats without code: no pickle, no operators of others, no external data.",
    test="integration/test_models_add.py::test_what_is_refused_says_why_and_changes_nothing",
)
def _plain_formats(project: Project) -> Outcome:
    flavours = sorted({project.bundles.load(each.digest).manifest.flavour for each in _champions(project)})
    if not flavours:
        return State.IDLE, "No version is live."
    return State.HOLDS, f"Live versions are {_listed(flavours)}."


@_measure(
    "overload",
    "Sizes, times and numbers of requests and connections are bounded, and a model's call is stopped after a time.",
    test="integration/test_gateway_fuzz.py::test_huge_bodies",
)
def _overload(project: Project) -> Outcome:
    settings = project.settings
    return State.HOLDS, (
        f"Bodies to {settings.max_body_bytes:,} bytes, {settings.gateway_limits.connections:,} connections a process, "
        f"{format_duration(settings.model_time_us)} a call."
    )


@_measure(
    "supply-chain",
    "The software and each version have a signed bill of materials; dependencies are locked by hash.",
    test="unit/governance/test_bom.py::test_a_change_breaks_the_signature",
)
def _supply_chain(_: Project) -> Outcome:
    from mainspring.operations.bills import installed

    found = list(installed())
    unknown = sum(not each.license for each in found)
    return State.HOLDS, f"{len(found)} distributions are installed; the license of {unknown} is unknown."


def _gates(project: Project, model: str) -> Sequence[Gate]:
    declared = project.definitions.models.get(model)
    return () if declared is None else declared.gates


def _served_models(project: Project) -> list[str]:
    return sorted({endpoint.model_name for endpoint in project.definitions.endpoints.values()})


def _champions(project: Project) -> list[ModelVersion]:
    found = []
    for model in _served_models(project):
        try:
            found.append(project.versions.get(model, routing.CHAMPION))
        except NotFound:
            continue
    return found


def _failing(project: Project, check: str) -> str:
    """Return what a check of `doctor` found to be wrong; empty if nothing is."""
    return next((finding.detail for finding in examine(project, check) if not finding.ok), "")


def _count(found: Sized, one: str) -> str:
    return f"{len(found)} {one}{'s' * (len(found) != 1)}"


def _days(duration: int) -> str:
    return _count(range(duration // DAY), "day")


def _listed(names: list[str]) -> str:
    return ", ".join(names)
