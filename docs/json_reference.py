"""Writes the reference of JSON output from the types, as a page and as JSON Schema: `python docs/json_reference.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from mainspring.cost.catalogue.importing import PriceImport
from mainspring.data.diff import TableDiff
from mainspring.data.history import TableChange
from mainspring.data.model import DatasetCommit, IngestReport
from mainspring.data.profile import TableProfile
from mainspring.data.restore import RestoreReport
from mainspring.data.warehouse.pulling import PullPlan, PullReport
from mainspring.delivery.model import Promotion
from mainspring.deploy.targets.model import PieceStatus
from mainspring.features.describe.wording import DefinitionRow
from mainspring.features.model import MaterialiseReport
from mainspring.features.offline.plan import Step as ReadStep
from mainspring.features.verify import Verification
from mainspring.governance.importance import ModelExplanation
from mainspring.governance.model import Card
from mainspring.jobs.model import Job
from mainspring.jobs.model import Status as JobStatus
from mainspring.jobs.model import Step as JobStep
from mainspring.jobs.pipelines.graph import Trigger
from mainspring.ledger.model import Prediction
from mainspring.llm.answers.model import CitedAnswer
from mainspring.llm.answers.replaying import AnswerReplay
from mainspring.llm.answers.watching import AnswerWatch
from mainspring.llm.held_calls import HeldCall
from mainspring.llm.prompts import PromptAlias, PromptVersion
from mainspring.llm.sizing import Plan as LanguageModelPlan
from mainspring.monitoring.service.burning import ObjectiveReport
from mainspring.operations.advise.folder import FirstPage
from mainspring.operations.advise.model import Advised
from mainspring.operations.advise.saving_model import SavingsReport
from mainspring.operations.advise.size_model import SizeReport
from mainspring.operations.answer_feedback import Rating
from mainspring.operations.answer_gates import JudgeAgreement
from mainspring.operations.answer_judging import JudgedAnswers
from mainspring.operations.answer_versions import AnswersVersion
from mainspring.operations.answers import AnswersEvaluation, AnswersReport
from mainspring.operations.backup.making import Made
from mainspring.operations.backup.restoring import Restored
from mainspring.operations.backup.verifying import KeptBackup, VerifiedBackups
from mainspring.operations.batch.values import BatchReport
from mainspring.operations.budgets.reporting import BudgetReport
from mainspring.operations.callers import Caller
from mainspring.operations.ci.model import Report
from mainspring.operations.collection_evaluation import CollectionEvaluation
from mainspring.operations.collections import CollectionReport
from mainspring.operations.cost.focus import FocusExport
from mainspring.operations.cost.reporting import CostReport
from mainspring.operations.data.batches import Batch, Descent
from mainspring.operations.demo.handbook import HandbookSummary
from mainspring.operations.demo.walkthrough import Summary
from mainspring.operations.deploying import DeployReport, Listed
from mainspring.operations.edge.building import BuiltPackage
from mainspring.operations.edge.checking import CheckedPackage
from mainspring.operations.edge.fleet import DeviceReport
from mainspring.operations.encoders import EncoderReport
from mainspring.operations.encryption import Rotation
from mainspring.operations.endpoint_health import EndpointSummary
from mainspring.operations.explaining import ExplainedPrediction
from mainspring.operations.fairness import Fairness
from mainspring.operations.features.deriving import FunctionCost
from mainspring.operations.features.entity_values import EntityValues
from mainspring.operations.features.unloading import Manifest
from mainspring.operations.features.view_freshness import ViewFreshness
from mainspring.operations.findings import Finding
from mainspring.operations.incidents import IncidentReport
from mainspring.operations.jobs.queue import Planned
from mainspring.operations.leaving.running import ExportedProject
from mainspring.operations.llm_usage import LanguageModelUsage
from mainspring.operations.migrate.migration import Moved as MovedPart
from mainspring.operations.models.adding import Added
from mainspring.operations.models.curating import Happened
from mainspring.operations.models.signing import SignedModel
from mainspring.operations.models.transferring import Moved
from mainspring.operations.optimise.model import OptimiseReport
from mainspring.operations.pipelines.control import StepState
from mainspring.operations.policies import Case
from mainspring.operations.predict import Answer
from mainspring.operations.predictions import Label
from mainspring.operations.prices import MachinePrice, OfferList
from mainspring.operations.profile import Check, Profile
from mainspring.operations.prompts import PromptDifference
from mainspring.operations.publishing import Release
from mainspring.operations.quality import MeasuredWindow
from mainspring.operations.quotas import QuotaUse
from mainspring.operations.replay.model import Replayed, ReplayReport
from mainspring.operations.reproduce.reproducing import Reproduction
from mainspring.operations.rollout.outlook import PlanReport
from mainspring.operations.rollout.reports import RolloutReport
from mainspring.operations.scaling import Scaling
from mainspring.operations.search.searching import SearchReport
from mainspring.operations.sessions import OpenSession
from mainspring.operations.status import EndpointStatus, OpenIncident, Status
from mainspring.operations.stream_endpoints.showing import StreamStatus
from mainspring.operations.streams.reports import StreamReport
from mainspring.operations.subjects.erasing import Held, Plan
from mainspring.operations.subjects.exporting import Exported
from mainspring.operations.tenants import TenantPlan
from mainspring.operations.topics import ListedPartition, ListedTopic, Produced, ShownMessage
from mainspring.registry.lineage import Lineage
from mainspring.registry.model import Approval, Deletion, ModelVersion, TensorSpec, TrustedKey, Waiver, Withdrawal
from mainspring.registry.searching import RunRow
from mainspring.security.model import Account, AccountGroup, BoundName, Grant
from mainspring.security.policy import Explanation
from mainspring.security.verification import Verdict
from mainspring.serving.model import Baseline
from mainspring.serving.simulation_report import SimulationReport
from mainspring.serving.sizing.speed import Speed
from mainspring.serving.streaming.replay import PartitionReplay
from mainspring.stats.exposure import Exposure
from mainspring.training.model import TrainReport
from mainspring.training.planning.plan import TrainingPlan
from mainspring.vectors.model import Build
from mainspring.vectors.searching import Found

PAGE = Path(__file__).parent / "reference" / "json.md"
SCHEMA = Path(__file__).parent / "assets" / "json-output.schema.json"
_SHORT = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
_HEAD = """\
# JSON output

<!-- Written by docs/json_reference.py; a test fails if it is not current. -->

With `--json` a command prints one JSON document on standard output, and everything else on standard error. This page
has the fields of each document. [One JSON Schema](../assets/json-output.schema.json) has the same for validators and
code generators, with each command under
`$defs`. Every field is always present. An instant is a text in RFC 3339, such as `2026-01-31T12:00:00Z`. A minor
version may add fields: ignore the ones that you do not know.

If a command fails, the document is `{"error": {"what": text, "fix": text or null, "retryable": true or false, "exit":
integer}}`, and [the exit code](exit-codes.md) is `exit`.
"""


class Document(NamedTuple):
    """The document of a command: an object, or a list of objects.

    Args:
        type: Its type, or a list of it.
        instants: Fields that the command prints as RFC 3339 texts: of the type, or `Type.field` of one within it.
        more: Fields that the command adds or prints as another type.
        less: Fields that it does not print.
        otherwise: Another type that the command may print instead, or several.
    """

    type: Any
    instants: tuple[str, ...] = ()
    more: Mapping[str, Any] = {}
    less: tuple[str, ...] = ()
    otherwise: Any = None


def _object(title: str, /, **fields: Any) -> Any:
    """Return the type of an object that the code of a command writes by hand."""
    return msgspec.defstruct(title, list(fields.items()))


_INSTANTS_TOO = {"ColumnProfile", "Histogram"}  # their numbers are instants if the column is one
_NUMBER = '{"type": "number"}'
_NUMBER_OR_INSTANT = f'{{"anyOf": [{_NUMBER}, {{"type": "string", "format": "date-time"}}]}}'
_JOB = ("enqueued_at", "due_at", "started_at", "ended_at", "leased_until")
_ROLLOUT = Document(RolloutReport, otherwise=Promotion)
_JOBS = Document(list[Job], _JOB)
_ADDED = Document(Added, more={"inputs": list[TensorSpec], "outputs": list[TensorSpec]})
_PARTITION = ("PartitionStatus.watermark", "PartitionStatus.at")
_STREAM = ("watermark", "PartitionReport.newest_event", "Member.through")
_FRESHNESS = tuple(f"ViewFreshness.{name}" for name in ("newest_event", "newest_visible", "through", "horizon"))
_WAIVER = ("at", "until", "ended_at")
_RECEIPT_CONTENT = _object(
    "ErasureContent", format=str, id=str, project=str, entity=str, subjects=list[str], reason=str, by=str,
    began_at=str, done_at=str, stores=list[Held], rebuilt=list[str], commits_no_longer_readable=list[str],
    models_to_decide_on=list[str], not_reached=list[str],
    artefacts=list[_object("DecidedArtefact", artefact=str, decision=Literal["keep", "delete"])],
    files_searched=bool, still_in=list[str],
)  # fmt: skip
_RECEIPT = _object("ErasureReceipt", receipt=_RECEIPT_CONTENT, key=str, signature=str)
_HOLD = _object("Hold", subject=str, entity=str, reason=str, held_at=int, held_by=str)
_ROW = _object("TrainingRow", keys=dict[str, Any], at=int, part=str, label=Any)
_COMMIT: dict[str, Any] = {"id": str, "versions": dict[str, int], "parent": str | None, "message": str, "at": int}
_MARKED: dict[str, Any] = {"model": str, "version": str, "digest": str, "actor": str, "reason": str, "at": int}
_RUN: dict[str, Any] = {
    "pipeline": str, "id": str, "status": JobStatus, "priority": int, "schedule": str | None, "key": str | None,
    "enqueued_at": int, "started_at": int | None, "ended_at": int | None, "error": str | None,
}  # fmt: skip
_RAN = ("started_at", "ended_at")
_RUN_INSTANTS = ("enqueued_at", "started_at", "ended_at")
_PIPELINE_RUN = Document(
    _object(
        "PipelineRun",
        **_RUN,
        teams=list[str],
        teams_why=str,
        parameters=dict[str, Any],
        result=Any,
        counts=dict[str, int],
        steps=list[StepState],
    ),
    (*_RUN_INSTANTS, "StepState.started_at", "StepState.ended_at"),
)
_LISTED = msgspec.defstruct(
    "ListedPrediction",
    [(each.name, each.type) for each in msgspec.structs.fields(Prediction) if each.name != "sealed"]
    + [("withheld", Literal["encrypted", "left out"] | None), ("label", Label | dict[str, Label])],
)
_ROLE_KEY = _object("RoleKey", role=str, key=str, file=str, present=bool, expires=int)
_FLEET_ROLLOUT = _object(
    "FleetRollout", id=str, package=str, version=int, before=int | None, status=Literal["running", "done", "stopped"],
    ring=int, rings=list[float], why=str, actor=str, started_at=int,
    history=list[_object("FleetEvent", at=int, text=str)],
)  # fmt: skip
DOCUMENTS = {
    "demo": Document(Summary, otherwise=HandbookSummary),
    "init": Document(_object("Created", project=str)),
    "apply": Document(
        _object(
            "Applied", applied=bool, definitions=int, notices=list[str],
            changes=list[_object(
                "AppliedChange", change=Literal["new", "changed", "gone"], kind=str, name=str, details=list[str],
            )],
        )
    ),
    "ingest": Document(IngestReport, otherwise=(PullReport, PullPlan)),
    "streams list": Document(list[StreamReport], _STREAM),
    "streams show": Document(StreamReport, _STREAM),
    "streams dead-letters": Document(
        list[_object("DeadLetter", partition=int, offset=str, bytes=int | None, reason=str, at=int)],  # type: ignore[misc]
        ("at",),
    ),
    "streams run": Document(dict[str, int]),
    "streams send": Document(_object("SentMessages", endpoint=str, messages=int)),
    "streams seek": Document(dict[str, str]),
    "streams replay": Document(list[PartitionReplay]),
    "data commit": Document(DatasetCommit, ("at",)),
    "encoders add": _ADDED,
    "encoders list": Document(list[EncoderReport]),
    "encoders show": Document(EncoderReport),
    "collections list": Document(list[CollectionReport], ("Build.built_at",)),
    "collections show": Document(CollectionReport, ("Build.built_at",)),
    "collections build": Document(list[Build], ("built_at",)),
    "collections evaluate": Document(CollectionEvaluation),
    "collections search": Document(list[Found]),
    "topics list": Document(list[ListedTopic]),
    "topics create": Document(ListedTopic),
    "topics show": Document(list[ListedPartition]),
    "topics tail": Document(list[ShownMessage]),
    "topics produce": Document(Produced),
    "data diff": Document(_object("Diff", before=str, after=str, tables=list[TableDiff])),
    "data log": Document(
        _object(
            "Log", commits=list[_object("LoggedCommit", **_COMMIT, changes=list[TableChange])], tags=dict[str, str]
        ),
        ("LoggedCommit.at",),
    ),
    "data profile": Document(TableProfile),
    "data publish": Document(Release),
    "data quarantine": Document(list[dict[str, Any]]),
    "data batches": Document(list[Batch], ("first", "last"), otherwise=Descent),
    "data restore": Document(RestoreReport),
    "data sign": Document(_object("SignedFile", signature=str, key=str)),
    "data tag": Document(_object("Tagged", tag=str, commit=str)),
    "data untag": Document(_object("Untagged", untagged=str)),
    "data vacuum": Document(_object("Vacuumed", dry_run=bool, files=dict[str, int])),
    "features entity": Document(EntityValues, ("at", "Mark.position", "Mark.until")),
    "features explain": Document(list[ReadStep]),
    "features list": Document(
        list[_object(
            "ListedView", view=str, entity=str, keys=list[str], source=str, features=list[str], matches=list[str],
            owner=str, description=str, freshness=ViewFreshness, function=FunctionCost | None,
        )],
        _FRESHNESS,
    ),
    "features read": Document(
        _object(
            "WrittenFile", path=str, rows=int, columns=list[str], features=list[str], at=str,
            label=str | list[str] | None, engine=str, notes=list[str], seconds=float,
        )
    ),
    "features show": Document(
        _object(
            "ViewDefinition", view=str, description=str, owner=str, tags=dict[str, str], entity=str,
            keys=dict[str, str], source=str, features=list[DefinitionRow],
        )
    ),
    "features sql": Document(_object("Statement", dialect=str, sql=str)),
    "features unload": Document(Manifest),
    "features verify": Document(_object("Verified", equal=bool, views=list[Verification]), ("Mismatch.at",)),
    "materialize": Document(list[MaterialiseReport], ("through",)),
    "train": Document(TrainReport, otherwise=TrainingPlan),
    "optimize": Document(OptimiseReport),
    "search": Document(SearchReport),
    "models add": _ADDED,
    "models function": _ADDED,
    "models compose": _ADDED,
    "models list": Document(list[ModelVersion], ("created_at",)),
    "models show": Document(
        Lineage, ("created_at", "Approval.at", "Withdrawal.at", "Deletion.at"),
        {"approvals": list[Approval], "withdrawn": list[Withdrawal], "deletion": Deletion | None},
    ),
    "models history": Document(list[Happened], ("at",)),
    "models label-issues": Document(
        _object(
            "LabelIssues", model=str, run=str, rows=int, classes=list[str | int], joint=list[list[float]],
            suspects=list[_object(
                "SuspectLabel", keys=dict[str, Any], at=int, label=str | int, suggested=str | int, confidence=float,
                repeats=bool,
            )],
        ),
        ("SuspectLabel.at",),
    ),
    "models exposure": Document(Exposure, more={"model": str, "version": str}),
    "models influence": Document(
        _object(
            "Influences", model=str, run=str, metric=str, groups=list[_object(
                "Influence", without=str, rows=int, fitted_on=int, judged_on=int, value=float, gain=float,
                low=float | None, high=float | None, harmful=bool, why_not=str,
            )],
        ),
    ),
    "models near-duplicates": Document(
        _object(
            "NearDuplicates", model=str, run=str, threshold=float, rows=dict[str, int], repeats=dict[str, int],
            of_training=dict[str, int], most_repeated=list[_object("Repeated", row=_ROW, count=int)],
            found=list[_object("NearDuplicate", row=_ROW, of=_ROW, similarity=float)],
        ),
        ("TrainingRow.at",),
    ),
    "models card": Document(Card, more={"complete": bool}),
    "models approve": Document(Approval, ("at",)),
    "models withdraw": Document(Withdrawal, ("at", "Approval.at")),
    "models waive": Document(Waiver, _WAIVER, less=("signature",)),
    "models waivers": Document(list[Waiver], _WAIVER, {"state": str}, less=("signature",)),
    "models delete": Document(Deletion, ("at",)),
    "models restore": Document(ModelVersion, ("created_at",)),
    "models gc": Document(
        _object(
            "Collected", dry_run=bool, versions=list[Deletion], bundles=list[str],
            kept=list[_object("KeptVersion", **_MARKED, claimed=bool, because=str)], unfinished=int,
        ),
        ("Deletion.at", "KeptVersion.at"),
    ),
    "models export": Document(Moved, more={"file": str}),
    "models import": Document(Moved),
    "models sign": Document(SignedModel),
    "models verify": Document(SignedModel),
    "models key": Document(_object("PublicKey", key=str)),
    "models trust": Document(list[TrustedKey], ("at",), {"public": str}),
    "promote": Document(Promotion),
    "ci": Document(Report, otherwise=_object("Emitted", system=str, path=str)),
    "rollback": Document(Promotion),
    "rollout plan": Document(PlanReport),
    "rollout start": _ROLLOUT,
    "rollout status": Document(RolloutReport),
    "rollout stop": Document(RolloutReport),
    "rollout promote": _ROLLOUT,
    "rollout rollback": Document(RolloutReport),
    "rollout list": Document(list[RolloutReport]),
    "up": Document(_object("Up", project=str, profile=str, gateway=str, control=str, admin_key=str | None)),
    "predict": Document(Answer),
    "batch": Document(BatchReport, ("ended_at", "at")),
    "bench": Document(Baseline, ("measured_at",)),
    "endpoints list": Document(list[EndpointSummary]),
    "endpoints callers": Document(list[Caller]),
    "endpoints scaling": Document(Scaling),
    "endpoints show": Document(
        _object(
            "ShownEndpoint", endpoint=EndpointStatus, incidents=list[OpenIncident], stream=StreamStatus | None
        ),
        _PARTITION,
    ),
    "objectives": Document(list[ObjectiveReport]),
    "quotas": Document(list[QuotaUse]),
    "cost show": Document(CostReport),
    "cost export": Document(FocusExport),
    "budgets": Document(list[BudgetReport]),
    "prices list": Document(OfferList),
    "prices show": Document(MachinePrice),
    "prices import": Document(PriceImport),
    "export prometheus-rules": Document(_object("ExportedRules", path=str, rules=int)),
    "export prometheus-scrape": Document(_object("ExportedScrape", path=str, targets=int)),
    "edge build": Document(BuiltPackage),
    "edge check": Document(CheckedPackage),
    "edge device": Document(DeviceReport, ("seen_at",)),
    "edge devices": Document(list[DeviceReport], ("seen_at",)),
    "edge publish": Document(
        _object(
            "PublishedPackage", name=str, version=int, bytes=int, published_at=int, repository=str,
            expires=dict[str, str],
        ),
        ("published_at",),
    ),
    "edge keys": Document(list[_ROLE_KEY], ("RoleKey.expires",)),
    "edge rotate": Document(_ROLE_KEY, ("expires",)),
    "edge sign": Document(dict[str, str]),
    "edge register": Document(_object("RegisteredDevice", device=str, package=str, key=str, setup=str)),
    "edge remove": Document(_object("RemovedDevice", device=str)),
    "edge rollout": Document(_FLEET_ROLLOUT, ("started_at", "FleetEvent.at")),
    "edge status": Document(
        _object(
            "FleetStatus", devices=int, conditions=dict[str, int], versions=dict[str, int], duplicates=list[str],
            wrong_clocks=list[str], rollouts=list[_FLEET_ROLLOUT],
            refusals=list[_object("FleetRefusal", device=str, reason=str, count=int, last_at=int)],
            releases=list[_object("FleetRelease", name=str, version=int, bytes=int)], expires=dict[str, str],
            uploaded=int, dropped=int,
        ),
        ("FleetRollout.started_at", "FleetEvent.at", "FleetRefusal.last_at"),
    ),
    "edge withdraw": Document(_object("WithdrawnPackage", name=str, version=int)),
    "edge page": Document(_object("EdgePage", folder=str, package=str, bytes=int, runtime=str)),
    "export grafana": Document(_object("ExportedDashboard", path=str, panels=int)),
    "export training": Document(_object("ExportedTraining", path=str, objects=int)),
    "export training-job": Document(_object("ExportedTrainingJob", path=str, objects=int)),
    "export project": Document(ExportedProject),
    "monitor run": Document(list[MeasuredWindow], ("start", "end", "computed_at")),
    "monitor query": Document(list[dict[str, Any]]),
    "monitor skew": Document(dict[str, dict[str, int]]),
    "incidents list": Document(list[IncidentReport]),
    "incidents show": Document(IncidentReport),
    "incidents own": Document(IncidentReport),
    "incidents silence": Document(IncidentReport),
    "incidents close": Document(IncidentReport),
    "incidents end-shed": Document(IncidentReport),
    "incidents verdict": Document(IncidentReport),
    "fairness": Document(
        Fairness, ("since", "until", "FairnessWindow.start", "FairnessWindow.end")
    ),
    "predictions list": Document(
        _object(
            "ListedPredictions", next=str | None, searched=int | None,
            predictions=list[_LISTED],
        ),
        ("searched", "ListedPrediction.at"),
    ),
    "predictions show": Document(
        Prediction, ("at",), {"withheld": Literal["encrypted", "left out"] | None}, less=("sealed",)
    ),
    "replay": Document(Replayed, ("Verdict.at",), otherwise=ReplayReport),
    "explain": Document(ExplainedPrediction, ("at", "Verdict.at"), otherwise=ModelExplanation),
    "runs list": Document(list[RunRow], _RAN, {"error": str | None}),
    **dict.fromkeys(("runs show", "runs rename", "runs note"), Document(RunRow, _RAN, {"error": str | None})),
    "runs compare": Document(
        _object(
            "ComparedRuns", runs=list[RunRow],
            differing=list[_object("DifferingValue", column=str, values=list[str | float | None])],
        ),
        ("RunRow.started_at", "RunRow.ended_at"),
    ),
    "reproduce": Document(Reproduction),
    "jobs list": _JOBS,
    "jobs cancel": _JOBS,
    "jobs logs": Document(_object("JobLog", log=str)),
    "jobs retry": _JOBS,
    "jobs run": Document(Job, _JOB),
    "jobs schedules": Document(list[Planned], ("last", "next")),
    "jobs show": Document(Job, (*_JOB, "Step.ended_at"), {"steps": list[JobStep]}),
    "pipelines list": Document(
        list[_object(
            "ListedPipeline", name=str, description=str, steps=int, priority=int, schedule=str, triggers=list[Trigger],
            parameters=dict[str, Any], newest=_object("NewestRun", **_RUN) | None,
        )],
        tuple(f"NewestRun.{name}" for name in _RUN_INSTANTS),
    ),
    "pipelines run": _PIPELINE_RUN,
    "pipelines status": _PIPELINE_RUN,
    "pipelines retry": _PIPELINE_RUN,
    "pipelines approve": Document(StepState, ("started_at", "ended_at")),
    "pipelines cancel": Document(_object("CancelledRun", **_RUN), _RUN_INSTANTS),
    "pipelines logs": Document(dict[str, str]),
    "pipelines graph": Document(
        _object(
            "PipelineGraph", name=str, description=str, parameters=dict[str, Any], nodes=list[dict[str, Any]],
            result=Any, limit=int | None, priority=int, schedule=str, triggers=list[Trigger],
        )
    ),
    "pipelines run-step": Document(Any),
    "pipelines step": Document(dict[str, Any]),
    "pipelines export": Document(_object("Exported", pipeline=str, engine=str, path=str, steps=int)),
    "completion": Document(_object("CompletionScript", shell=str, script=str)),
    "console": Document(_object("ConsoleLink", url=str, console=str)),
    "keys create": Document(_object("CreatedKey", name=str, scopes=list[str], key=str)),
    "keys list": Document(
        list[_object(
            "ListedKey", id=str, name=str, scopes=list[str], created_at=int, expires_at=int,
            revoked_at=int | None, created_by=str, owner=str,
        )],
        ("created_at", "expires_at", "revoked_at"),
    ),
    "keys revoke": Document(_object("RevokedKey", revoked=str)),
    "sbom": Document(
        _object(
            "BillOfMaterials", bomFormat=str, specVersion=str, serialNumber=str, version=int, metadata=dict[str, Any],
            components=list[dict[str, Any]], dependencies=list[dict[str, Any]], signature=dict[str, Any],
        )
    ),
    "evidence": Document(
        _object(
            "EvidenceReport", format=str, framework=_object("Framework", id=str, name=str, title=str, scope=str),
            project=str, profile=str, installation=str, mainspring=str, at=str, states=dict[str, int],
            controls=list[_object(
                "Control", ref=str, about=str, measures=list[str], remains=str, state=str,
            )],  # type: ignore[misc]
            measures=list[_object(
                "Measure", name=str, what=str, off_by=str, test=str, state=str, found=str,
            )],  # type: ignore[misc]
            signature=dict[str, Any],
        )
    ),
    "audit search": Document(
        list[_object("FoundEvent", number=int, at=int, actor=str, action=str, resource=str, detail=str,
                     subject=str | None)],  # type: ignore[misc]
        ("at",),
    ),
    "audit export": Document(_object("ExportedEvents", file=str, events=int)),
    "audit proof": Document(
        _object(
            "ProvenEvent", head=str,
            event=_object(
                "LoggedEvent", number=int, at=int, actor=str, action=str, resource=str, detail=str,
                commitment=str | None, salt=str | None, subject=str | None, proof=list[str],
            ),
        )
    ),
    "audit verify": Document(_object("VerifiedLog", well=bool, key_from_file=bool, verdict=Verdict)),
    **dict.fromkeys(
        (f"{of} {name}" for of in ("users", "service-accounts") for name in ("add", "disable", "enable", "remove")),
        Document(Account, ("created_at", "disabled_at")),
    ),
    **dict.fromkeys(("users list", "service-accounts list"), Document(list[Account], ("created_at", "disabled_at"))),
    "sessions list": Document(list[OpenSession], ("opened_at", "expires_at", "checked_at")),
    "sessions end": Document(_object("EndedSessions", ended=int)),
    "login": Document(_object("SignedIn", account=str, name=str, email=str, issuer=str, kept_in=str)),
    "logout": Document(_object("SignedOut", signed_out=bool)),
    "whoami": Document(
        _object("Myself", user=str, account=str, name=str, roles=list[str], groups=list[str], expires_at=str | None,
                console=str)
    ),
    **dict.fromkeys(("users bind", "service-accounts bind"), Document(BoundName, ("at",))),
    "groups add": Document(AccountGroup, ("created_at",)),
    "groups list": Document(list[AccountGroup], ("created_at",)),
    "groups remove": Document(_object("RemovedGroup", removed=str)),
    **dict.fromkeys(
        ("groups add-member", "groups remove-member"),
        Document(_object("Membership", group=str, account=str, member=bool)),
    ),
    "roles grant": Document(Grant, ("granted_at",), more={"warnings": list[str]}),
    "roles revoke": Document(Grant, ("granted_at",)),
    "roles list": Document(list[Grant], ("granted_at",)),
    "retention": Document(_object("RetentionAnswer", plan=Plan | None, receipt=_RECEIPT | None)),  # type: ignore[valid-type]
    "erase": Document(_object("ErasureAnswer", plan=Plan | None, receipts=list[_RECEIPT], held=int)),  # type: ignore[valid-type]
    "subject export": Document(_object("ExportedSubject", archive=str, files=list[Exported])),
    "subject receipt": Document(_RECEIPT),
    "subject receipts": Document(
        list[_object("ListedErasure", id=str, entity=str, subjects=int, began_at=int, done_at=int | None)],
        ("began_at", "done_at"),
    ),
    "subject verify": Document(_object("VerifiedReceipt", well=bool, receipt=_RECEIPT_CONTENT)),
    **dict.fromkeys(("subject hold", "subject holds"), Document(list[_HOLD], ("held_at",))),  # type: ignore[valid-type]
    "subject release": Document(_object("ReleasedSubjects", released=int)),
    "encryption status": Document(
        _object(
            "EncryptionStatus", service=str, version=str,
            keys=list[_object(
                "DataKey", id=str, purpose=str, number=int, version=str, behind=bool, created_at=int,
            )],
        ),
        ("DataKey.created_at",),
    ),
    "encryption rotate": Document(Rotation),
    "backup make": Document(Made, ("made_at",)),
    "backup list": Document(list[KeptBackup], ("made_at",)),
    "backup verify": Document(VerifiedBackups),
    "restore": Document(Restored, ("made_at",)),
    "encryption rewrite": Document(_object("Rewritten", tables=list[str])),
    "policy check": Document(_object("CheckedPolicies", files=list[str])),
    "policy test": Document(_object("TestedPolicies", cases=int, wrong=list[Case])),
    "policy explain": Document(Explanation),
    "prompts list": Document(list[PromptVersion], ("applied_at",)),
    "prompts show": Document(PromptVersion, ("applied_at",)),
    "prompts point": Document(PromptAlias, ("moved_at",)),
    "prompts aliases": Document(list[PromptAlias], ("moved_at",)),
    "prompts diff": Document(PromptDifference),
    "llm approvals": Document(list[HeldCall], ("asked_at", "decided_at")),
    **dict.fromkeys(("llm approve", "llm deny"), Document(HeldCall, ("asked_at", "decided_at"))),
    "answers list": Document(list[AnswersReport]),
    "answers ask": Document(CitedAnswer, ("at",)),
    "answers replay": Document(AnswerReplay),
    "answers evaluate": Document(AnswersEvaluation),
    "answers watch": Document(AnswerWatch),
    "answers versions": Document(list[AnswersVersion]),
    **dict.fromkeys(("answers promote", "answers rollback"), Document(Promotion)),
    "answers rate": Document(Rating),
    "answers agreement": Document(JudgeAgreement),
    "answers judge": Document(JudgedAnswers),
    "llm plan": Document(LanguageModelPlan),
    "llm usage": Document(list[LanguageModelUsage]),
    "simulate": Document(SimulationReport),
    "deploy": Document(DeployReport),
    "targets list": Document(list[Listed]),
    "targets render": Document(_object("Rendered", target=str, files=list[str])),
    "targets status": Document(_object("TargetStatus", target=str, pieces=list[PieceStatus])),
    "targets destroy": Document(_object("Destroyed", target=str, removed=list[str])),
    "status": Document(Status),
    "advise next": Document(Advised, otherwise=FirstPage),
    "advise size": Document(SizeReport),
    "advise cost": Document(SavingsReport),
    "advise machine": Document(Speed),
    "migrate": Document(_object("Migrated", **{"from": str}, to=str, moved=list[MovedPart])),
    "profile list": Document(_object("Profiles", profile=str, profiles=list[Profile])),
    "profile check": Document(_object("CheckedProfile", profile=str, well=bool, checks=list[Check])),
    "tenant plan": Document(TenantPlan),
    "doctor": Document(_object("Examined", well=bool, findings=list[Finding])),
}  # fmt: skip


_UNNAMED = {
    "array": "A list of rows. Each has its values by column.",
    "object": "An object of values by name.",
    "": "Any JSON value.",
}


def schemas() -> dict[str, Any]:
    """Return the JSON Schema of every document, by command, under `$defs` with the objects that they hold."""
    parts = {command: _objects(document) for command, document in DOCUMENTS.items()}
    taken = {_own(root): objects.get(_own(root)) for root, objects in reversed(parts.values())}
    definitions: dict[str, Any] = {}
    for command, (root, objects) in parts.items():
        names = {}
        for name, found in objects.items():
            names[name] = name if taken.setdefault(name, found) == found else f"{_owner(command, root, name)}{name}"
            taken[names[name]] = found
        text = json.dumps([root, {names[name]: found for name, found in objects.items()}])
        for name, new in names.items():
            text = text.replace(f'"#/$defs/{name}"', f'"#/$defs/{new}"')
        definitions[command], found = json.loads(text)
        definitions |= found
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": definitions}


def _objects(document: Document) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schema of one document, and those of the objects in it by name."""
    others = document.otherwise if isinstance(document.otherwise, tuple) else (document.otherwise,)
    types = [document.type, *document.more.values(), *filter(None, others)]
    roots, objects = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    root, more = roots[0], dict(zip(document.more, roots[1:], strict=False))
    own = _own(root)
    for name, found in objects.items():
        if name == own:
            found["properties"] = {
                field: more.get(field, schema)
                for field, schema in (found["properties"] | more).items()
                if field not in document.less
            }
        if "properties" in found:
            found["required"] = list(found["properties"])
        for said in (found, *found.get("properties", {}).values()):
            for word in ("title", "description", "default"):
                said.pop(word, None)
        if name in _INSTANTS_TOO:
            objects[name] = json.loads(json.dumps(found).replace(_NUMBER, _NUMBER_OR_INSTANT))
    for field in document.instants:
        within, _, inner = field.rpartition(".")
        fields = objects[within or own]["properties"]
        fields[inner] = _instant(fields[inner])
    return ({"anyOf": [root, *roots[-len(others) :]]} if document.otherwise else root), objects


def _own(schema: dict[str, Any]) -> str:
    """Return the name of a document's object; empty if it has none."""
    return str(schema.get("items", schema).get("$ref", "")).rpartition("/")[2]


def _owner(command: str, root: dict[str, Any], name: str) -> str:
    """Return the prefix of an object whose name another object has: its document's object, or its command."""
    own = _own(root)
    return own if own not in ("", name) else command.title().replace(" ", "")


def _instant(schema: dict[str, Any]) -> dict[str, Any]:
    text = {"type": "string", "format": "date-time"}
    return {"anyOf": [text, {"type": "null"}]} if {"type": "null"} in schema.get("anyOf", []) else text


def page() -> str:
    """Return the whole page."""
    definitions = schemas()["$defs"]
    lines, shown = [_HEAD], dict[str, str]()
    for command in DOCUMENTS:
        lines.append(f"## `mainspring {command} --json`\n")
        for number, schema in enumerate(_parts(definitions[command])):
            name, listed = _own(schema), "A list. Each entry has " if schema.get("type") == "array" else ""
            if number:
                lines.append("Or:\n")
            if not name:
                lines.append(f"{_UNNAMED[schema.get('type', '')]}\n")
            elif name in shown:
                lines.append(f"{listed or 'It has '}the fields of {_section(shown[name])}.\n")
            else:
                shown[name] = command
                lines += [f"{listed}these fields:\n"] * bool(listed) + [*_described(definitions[name])]
    lines.append("## Objects\n")
    own = [_own(schema) for command in DOCUMENTS for schema in _parts(definitions[command])]
    referred = json.dumps(definitions)
    for name in sorted(set(definitions) - set(DOCUMENTS)):
        if name not in shown:
            lines += [f"### {name}\n", *_described(definitions[name])]
        elif referred.count(f'"#/$defs/{name}"') > own.count(name):
            lines.append(f"### {name}\n\nIt has the fields of {_section(shown[name])}.\n")
    return "\n".join(lines)


def _parts(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return schema.get("anyOf", [schema])


def _section(command: str) -> str:
    title = f"mainspring {command} --json"
    return f"[`{title}`](#{title.replace(' ', '-')})"


def _described(schema: dict[str, Any]) -> Iterator[str]:
    if "enum" in schema:
        yield f"One of {', '.join(f'`{each}`' for each in schema['enum'])}.\n"
        return
    yield "| field | type |\n|---|---|"
    for name, field in schema["properties"].items():
        yield f"| `{name}` | {_type(field)} |"
    yield ""


def _type(schema: dict[str, Any]) -> str:
    """Return a field's type in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(each) for each in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(each)}`" for each in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        if "prefixItems" in schema:
            return f"list of {' and '.join(_type(each) for each in schema['prefixItems'])}"
        return f"list of {_type(schema['items'])}" if schema.get("items") else "list"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"object of {_type(values)} by name" if isinstance(values, dict) and values else "object"
    if schema.get("format") == "date-time":
        return "instant"
    return _SHORT[kind] if kind else "any JSON value"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(json.dumps(schemas(), indent=1) + "\n", encoding="utf-8")
