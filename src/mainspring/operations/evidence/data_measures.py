"""Measures of data: encryption, retention, consent, quality and erasure."""

from __future__ import annotations

from mainspring.core.settings import Address, Tls
from mainspring.core.time import format_duration
from mainspring.data.model import Source
from mainspring.features.model import SEALED
from mainspring.governance.evidence import State
from mainspring.ledger.model import PREDICTIONS
from mainspring.operations.encryption import not_as_set
from mainspring.operations.encryption import state as keys_of_data
from mainspring.operations.evidence.measuring import (
    YEAR,
    Measures,
    Outcome,
    count,
    days,
    failing,
    listed,
)
from mainspring.project import Project
from mainspring.security.envelopes import MAGIC

MEASURES = Measures()


@MEASURES.measure(
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
        return State.OFF, f"In clear, and not on loopback: {listed(clear)}."
    wrong = failing(project, "certificates")
    if wrong:
        return State.FAILS, wrong
    told = [f"{name} {'by TLS' if tls is not None else 'on loopback'}" for name, _, tls in planes]
    return State.HOLDS, f"{', '.join(told)}."


@MEASURES.measure(
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
        return State.PARTLY, f"{count(keys, 'data key')}, which open; the master key is in the same state folder."
    return State.HOLDS, f"{count(keys, 'data key')}, which open; the master key: {found.service}."


@MEASURES.measure(
    "secrets-of-the-catalog",
    "API keys are in the catalog as keyed hashes, and tokens of identity providers encrypted.",
    test="integration/test_catalog_secrets.py::test_no_secret_is_in_a_byte_of_the_catalog",
)
def _catalog_secrets(project: Project) -> Outcome:
    keys, sessions = project.key_store.all(), project.user_sessions.all()
    clear = [each for each in sessions if not each.sealed.startswith(MAGIC)]
    if clear:
        return State.FAILS, f"Tokens of {count(clear, 'session')} are no envelopes: end these sessions."
    return State.HOLDS, f"{count(keys, 'key')} as hashes, tokens of {count(sessions, 'session')} in envelopes."


@MEASURES.measure(
    "encryption-of-models",
    "Bundles are encrypted where they are stored.",
    off_by="`blobs_encrypted = false`",
    test="unit/registry/test_sealed.py::test_the_store_has_ciphertext_and_readers_have_files",
)
def _bundles_encrypted(project: Project) -> Outcome:
    if not project.settings.blobs_encrypted:
        return State.OFF, "New bundles are stored in clear."
    return State.HOLDS, "New bundles are encrypted."


@MEASURES.measure(
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
        return State.PARTLY, f"States are in clear in {listed(clear)}, until these views are materialised or tidied."
    return State.HOLDS, "States and keys of entities are encrypted."


@MEASURES.measure(
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
        return State.PARTLY, f"Rows from before are in clear in {listed(behind)}: `mainspring encryption rewrite`."
    return State.HOLDS, "Marked columns are encrypted in all rows of newest versions."


@MEASURES.measure(
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
            f"{count(range(behind), 'data key')} under an older master key: a rotation was interrupted.",
        )
    newest = {key.purpose: key.created_at for key in sorted(found.keys, key=lambda key: key.number)}
    age = project.wall.now() - min(newest.values())
    told = f"The oldest data key in use is {days(age)} old."
    return (State.PARTLY if age > YEAR else State.HOLDS), told


@MEASURES.measure(
    "private-files",
    "The state folder's secrets and databases are readable by their owner alone.",
    test="e2e/test_planes.py::test_files_of_the_state_are_their_owners_alone_while_it_is_up",
)
def _private_files(project: Project) -> Outcome:
    wrong = failing(project, "private files")
    return (State.FAILS, wrong) if wrong else (State.HOLDS, "No secret is readable by others.")


@MEASURES.measure(
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
        return State.OFF, f"No column is marked, in {count(sources, 'source')}."
    return State.HOLDS, f"Marked columns: {marked}, of {count([each for each in sources if each.pii], 'source')}."


@MEASURES.measure(
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


@MEASURES.measure(
    "retention-of-rows",
    "Rows with personal values are deleted from every version, or lose these, after a time by purpose.",
    off_by="a source with `pii`, without a `retention` of its rows or of all these columns",
    test="integration/test_retention.py::test_rows_past_their_time_are_in_no_byte_of_any_store",
)
def _retention_of_rows(project: Project) -> Outcome:
    sources = [source for source in project.definitions.sources.values() if source.pii]
    if not sources:
        return State.IDLE, "No column is marked as personal."
    if any(not each.entity for each in project.erasures.unfinished()):
        return State.FAILS, "A deletion began and did not end: run `mainspring retention`."
    unlimited = sorted(source.name for source in sources if not _ends(source))
    if len(unlimited) == len(sources):
        return State.OFF, "Personal values are kept for ever."
    if unlimited:
        return State.PARTLY, f"Kept for ever: personal values of {', '.join(unlimited)}."
    return State.HOLDS, f"Times are declared for {count(sources, 'source')} with personal columns."


def _ends(source: Source) -> bool:
    """Return whether each personal value of a source is removed at some time."""
    of_rows = any(not each.columns for each in source.retentions)
    return of_rows or {*source.pii} <= {name for each in source.retentions for name in each.columns}


@MEASURES.measure(
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


@MEASURES.measure(
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
        return State.OFF, f"No consent is asked for, in {count(models, 'model')}."
    purposes = ", ".join(sorted({each.observations.consent.purpose for each in asking if each.observations.consent}))
    told = f"Models that ask for consent: {len(asking)} of {len(models)} ({purposes})."
    return (State.HOLDS if len(asking) == len(models) else State.PARTLY), told


@MEASURES.measure(
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
        return State.OFF, f"No rule, in {count(sources, 'source')}."
    told = f"Rules: {rules}, in {len(sources) - len(without)} of {count(sources, 'source')}"
    return (State.PARTLY, f"{told}; without: {listed(without)}.") if without else (State.HOLDS, f"{told}.")


@MEASURES.measure(
    "erasure",
    "A person is erased from tables, features, predictions and encrypted copies, with a signed receipt.",
    test="integration/test_erase.py::test_after_an_erasure_no_byte_of_any_store_is_the_subjects",
)
def _erasure(project: Project) -> Outcome:
    erasures = [each for each in project.erasures.all() if each.entity]  # those of a retention are of no entity
    if unfinished := [each for each in project.erasures.unfinished() if each.entity]:
        return State.FAILS, f"{count(unfinished, 'erasure')} began and did not end: run `mainspring erase` again."
    told = f"Erasures with a receipt: {len(erasures)}." if erasures else "Nobody was erased yet."
    return (
        State.PARTLY,
        f"{told} Messages in Kafka and Kinesis, states of stream endpoints and files of jobs are not reached.",
    )


@MEASURES.measure(
    "subject-access",
    "What is known of a person in tables, features, predictions and the audit log is exported.",
    test="integration/test_erase.py::test_after_an_erasure_no_byte_of_any_store_is_the_subjects",
)
def _subject_access(_: Project) -> Outcome:
    return State.HOLDS, "`mainspring subject export` writes an archive; the export is an audit event."


@MEASURES.measure("backups", "Copies of what cannot be made again exist, and are young.")
def _backups(_: Project) -> Outcome:
    return State.OPEN, "Mainspring makes no backups, and does not know of any."
