"""`mainspring export`: files for Prometheus, Grafana and Kubernetes, and the whole project in open formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.core.settings import TRAINING_KINDS

if TYPE_CHECKING:
    from rich.console import Console


@click.group("export", cls=Group)
def command() -> None:
    """Write rules for Prometheus, dashboards for Grafana, trainings for Kubernetes, or the whole project."""


@make("prometheus-rules", reads_only=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("mainspring.rules.yml"), show_default=True)
def prometheus_rules(call: Call, *, output: Path) -> None:
    """Write recording and alert rules: burn rates of the declared objectives, and the health of processes."""
    from mainspring.monitoring.service.prometheus_rules import rules, yaml

    document = rules(call.project.definitions.monitors.values(), tenant=call.project.settings.tenant)
    _write(call, output, yaml(document), rules=sum(len(group["rules"]) for group in document["groups"]))


@make("prometheus-scrape", reads_only=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("mainspring.scrape.yml"), show_default=True)
@click.option("--credentials", default="/etc/prometheus/mainspring.key", show_default=True, help="File with the key.")
def prometheus_scrape(call: Call, *, output: Path, credentials: str) -> None:
    """Write the scrape configuration of both planes, for `scrape_config_files`."""
    from mainspring.monitoring.service.prometheus_scrape import scrape_config
    from mainspring.project.running import where_up

    settings = where_up(call.project.settings)
    text = scrape_config(settings.gateway, settings.control, credentials, tenant=settings.tenant)
    _write(call, output, text, targets=2)


@make("grafana", reads_only=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("mainspring.dashboard.json"), show_default=True)
def grafana(call: Call, *, output: Path) -> None:
    """Write a dashboard of all endpoints: objectives, service, quality, versions, processes."""
    import json

    from mainspring.monitoring.service.dashboards import dashboard

    document = dashboard(tenant=call.project.settings.tenant)
    panels = sum(panel["type"] != "row" for panel in document["panels"])
    _write(call, output, json.dumps(document, indent=2) + "\n", panels=panels)


def _pairs(context: click.Context, argument: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """Return what options name, by the part before `=` or `:`."""
    mark = "=" if argument.name == "env" else ":"
    for each in given:
        if mark not in each:
            raise click.BadParameter(f"{each!r} has no {mark!r}.", ctx=context, param=argument)
    return {name: value for name, _, value in (each.partition(mark) for each in given)}


@make("training")
@click.argument("model")
@click.option("--to", "kind", type=click.Choice(TRAINING_KINDS), required=True, help="Controller that runs it.")
@click.option("--output", type=click.Path(path_type=Path), help="By default MODEL.KIND.yaml.")
@click.option("--image", help="With Mainspring and the project; by default kubernetes_image of the profile.")
@click.option("--machines", type=click.IntRange(1), help="Pods; by default as the model declares.")
@click.option("--processes", type=click.IntRange(1), help="Processes of each; by default as the model declares.")
@click.option("--cpu", help="Processors of a pod; by default kubernetes_cpu for each process.")
@click.option("--memory", help="Memory of a pod, or plan; by default kubernetes_memory.")
@click.option("--gpu", is_flag=True, help="A GPU for each process.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", callback=_pairs, help="A variable, no secret; repeatable.")
@click.option("--claim", "claims", multiple=True, metavar="NAME:PATH", callback=_pairs, help="A volume; repeatable.")
@click.option("--queue", default="", help="Local queue of Kueue.")
@click.option("--name", default="", help="Name of the objects; by default the model's.")
def training(call: Call, *, model: str, kind: str, output: Path | None, **given: Any) -> None:
    """Write the objects of Kubernetes that train MODEL: a JobSet, a TrainJob or a PyTorchJob.

    With --memory plan a pod gets what the network, its rows and the libraries take, measured here.
    """
    from mainspring.operations.distributed.manifests import Wanted, as_yaml, training_manifest

    wanted = Wanted(**{name: value for name, value in given.items() if value is not None})
    with call.progress() as progress:
        objects = training_manifest(
            call.project, model, kind, wanted,
            lambda stage, share: progress.update(model, round(share * 100), 100, stage),
        )  # fmt: skip
    _write(call, output or Path(f"{model}.{kind}.yaml"), as_yaml(objects), objects=len(objects))


@make("training-job")
@click.argument("model")
@click.option("--role", required=True, help="ARN of the role that the job has.")
@click.option("--folder", required=True, metavar="s3://BUCKET/FOLDER", help="Place of SageMaker's own files.")
@click.option("--image", required=True, help="In ECR, with Mainspring and the project in kubernetes_folder.")
@click.option("--instance", default="ml.m5.xlarge", show_default=True, help="Type of the machine.")
@click.option("--spot", is_flag=True, help="On a spot instance: it goes on from its checkpoint.")
@click.option("--longest", default="1d", show_default=True, metavar="DURATION", help="Time after which it is stopped.")
@click.option("--processes", type=click.IntRange(1), help="Processes; by default as the model declares.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", callback=_pairs, help="A variable, no secret; repeatable.")
@click.option("--subnet", "subnets", multiple=True, help="Of a private network; repeatable.")
@click.option("--security-group", "security_groups", multiple=True, help="In that network; repeatable.")
@click.option("--name", default="", help="Name of the job; by default the model's, with the instant.")
@click.option("--output", type=click.Path(path_type=Path), help="By default MODEL.training-job.json.")
def training_job(
    call: Call, *, model: str, longest: str, processes: int | None, output: Path | None, **given: Any
) -> None:
    """Write the request for a training job of SageMaker that trains MODEL on one machine.

    `aws sagemaker create-training-job --cli-input-json file://FILE` starts it.
    """
    import json

    from mainspring.core.time import parse_duration
    from mainspring.deploy.sagemaker.training import Job
    from mainspring.operations.distributed.manifests import sagemaker_job

    job = Job(longest_s=parse_duration(longest) // 1_000_000, **given)
    request = sagemaker_job(call.project, model, job, processes)
    _write(call, output or Path(f"{model}.training-job.json"), json.dumps(request, indent=2) + "\n", objects=1)


@make("project")
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="A folder that is empty or not there yet, or has an unfinished export.",
)
@click.option(
    "--reveal", is_flag=True, help="Write values that identify a person too; the audit log records the actor."
)
def project_(call: Call, *, folder: Path, reveal: bool) -> None:
    """Write everything in open formats: tables, predictions, features, models, runs, decisions, usage.

    Parquet, ONNX or a framework's own file, MLflow's store, and JSON with JSON Schema: nothing of it needs Mainspring.
    Run an interrupted export again to complete it.
    """
    from mainspring.operations.leaving.running import export_project

    with call.progress() as progress:
        made = export_project(call.project, folder, reveal=reveal, told=progress.in_turn)
        progress.finish_all()

    def show(console: Console) -> None:
        console.print(
            f"{made.folder}: {made.files} files, {made.rows:,} rows, {made.bytes / 1e6:,.1f} MB, as of {made.at}.",
            markup=False,
        )
        for each in made.left_out:
            console.print(f"  left out: {each.what}: {each.why}", markup=False, style="dim")
        console.print(
            f"Next: cd {made.folder} && sha256sum -c SHA256SUMS; README.md says what each file is.", markup=False
        )

    call.result(made, show)


def _write(call: Call, path: Path, text: str, **counted: int) -> None:
    from mainspring.core.files import write_atomic

    write_atomic(path, text.encode())
    (name, count), *_ = counted.items()

    def show(console: Console) -> None:
        console.print(f"Wrote {path}: {count} {name}.", markup=False, soft_wrap=True)

    call.result({"path": str(path), **counted}, show)


for each in (project_, prometheus_rules, prometheus_scrape, grafana, training, training_job):
    command.add_command(each)
