"""The command line. A command's module is imported when it is called: `--help` loads none of them."""

from __future__ import annotations

import sys
from importlib import import_module

import click
from click.exceptions import NoArgsIsHelpError

from mainspring.core.ending import exits_beside_threads
from mainspring.core.memory import reserve_little

# name -> (module in cli/commands, one line of help), in the order of a project's life
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "Run the flights example from ingestion to monitoring."),
    "init": ("init", "Create a project."),
    "apply": ("apply", "Check the definitions, show the changes, store them."),
    "ingest": ("ingest", "Ingest data into a source's table."),
    "streams": ("streams", "Streams: into sources, and of stream endpoints."),
    "data": ("data", "Versions of the data: log, diff, restore, profile."),
    "encoders": ("encoders", "Encoders of texts: add MiniLM or another."),
    "collections": ("collections", "Documents found by meaning: build, search."),
    "topics": ("topics", "Topics of the event log: list, show, tail, produce."),
    "features": ("features", "List, explain, read and verify features."),
    "materialize": ("materialize", "Bring the online features up to date."),
    "search": ("search", "Tune hyperparameters; training uses the best."),
    "train": ("train", "Train, verify, sign and register a model."),
    "optimize": ("optimize", "Make a version smaller and faster, measured."),
    "models": ("models", "Register, show, approve, delete, export versions."),
    "promote": ("promote", "Promote a version if it passes its gates."),
    "ci": ("ci", "Run the model pipeline: commit to production."),
    "rollback": ("rollback", "Move the champion back to the version before."),
    "rollout": ("rollout", "Roll a version out by steps, on evidence."),
    "up": ("up", "Run the gateway, the console and the worker."),
    "deploy": ("deploy", "Bring the endpoints to a target: a machine, a cluster."),
    "targets": ("targets", "Targets: list, render, status, destroy."),
    "console": ("console", "Print a link that logs into the console."),
    "predict": ("predict", "Request a prediction from a running endpoint."),
    "batch": ("batch", "Predict for many rows: a table, files, a query."),
    "bench": ("bench", "Find the highest load that an endpoint can serve."),
    "simulate": ("simulate", "Simulate an endpoint under a load: policies, cost."),
    "monitor": ("monitor", "Quality and drift now; its tables by SQL."),
    "endpoints": ("endpoints", "Endpoints and their health: list, show."),
    "incidents": ("incidents", "Incidents: list, own, silence, close, judge."),
    "objectives": ("objectives", "Show objectives and their error budgets."),
    "quotas": ("quotas", "Show what callers used of their quotas."),
    "cost": ("cost", "What was used and what it cost: show, export."),
    "budgets": ("budgets", "Budgets of the month: spent, forecast, held."),
    "prices": ("prices", "Prices of machines: list, show, import."),
    "edge": ("edge", "Packages for devices: build, publish, roll out."),
    "export": ("export", "Write files for Prometheus, Grafana, Kubernetes."),
    "fairness": ("fairness", "Compare groups: rates, errors, calibration."),
    "predictions": ("predictions", "Logged predictions: list, show."),
    "replay": ("replay", "Answer logged predictions again, and compare."),
    "explain": ("explain", "Explain a prediction, or a model."),
    "runs": ("runs", "Training runs: list, show, compare."),
    "reproduce": ("reproduce", "Repeat a recorded training, and compare."),
    "jobs": ("jobs", "Background work: list, run, cancel, retry."),
    "pipelines": ("pipelines", "Graphs of steps: run, approve, retry, export."),
    "llm": ("llm", "Language models: plan GPUs; approve calls of tools."),
    "prompts": ("prompts", "Versions of prompts: list, show, diff, point."),
    "answers": ("answers", "Answers from documents, with citations."),
    "sbom": ("sbom", "Bills of materials, of software and versions."),
    "evidence": ("evidence", "What serves the controls of GDPR, HIPAA and others."),
    "keys": ("keys", "Create, list and revoke API keys."),
    "audit": ("audit", "The audit log: search it, verify that it is whole."),
    "login": ("login", "Sign in at the identity provider."),
    "logout": ("logout", "Forget the sign-in of this machine's user."),
    "whoami": ("whoami", "Show who you are, here and to the console."),
    "users": ("users", "Add, list, disable and remove users."),
    "sessions": ("sessions", "Console sessions of people: list, end."),
    "groups": ("groups", "Groups of accounts, and their members."),
    "service-accounts": ("service_accounts", "Accounts of programs: owners of their keys."),
    "erase": ("erase", "Erase subjects, such as a customer, from every store."),
    "retention": ("retention", "Delete rows past the retention of their sources."),
    "subject": ("subject", "Export a subject's data; receipts, legal holds."),
    "roles": ("roles", "Grant, revoke and list roles."),
    "encryption": ("encryption", "Keys that encrypt stored data: status, rotate."),
    "policy": ("policy", "Check, test and explain who may do what."),
    "status": ("status", "Show live versions and the state of endpoints."),
    "advise": ("advise", "Advice: the next step, sizes of machines, savings."),
    "backup": ("backup", "Back up the project, encrypted; list and verify."),
    "restore": ("restore", "Restore a backup; the erased stay erased."),
    "migrate": ("migrate", "Copy the project's data to another profile."),
    "profile": ("profile", "List profiles; check the backends of one."),
    "tenant": ("tenant", "Rights of a team that shares servers with others."),
    "doctor": ("doctor", "Check data, models and processes for problems."),
    "completion": ("completion", "Print a script that completes commands and names."),
}
# Names of earlier releases: they are not listed. A command may be one of a group.
FORMER: dict[str, tuple[str, str]] = {"prediction": ("predictions", "show")}


class _Commands(click.Group):
    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        name, inner = FORMER.get(cmd_name, (cmd_name, ""))
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"mainspring.cli.commands.{COMMANDS[name][0]}").command
        return command.commands[inner] if inner and isinstance(command, click.Group) else command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, 1)
            if near:
                raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from None
            raise click.UsageError(f"{error.message} There are {', '.join(COMMANDS)}.", ctx) from None


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Each command takes --json, --project, --profile and --debug. Exit codes: docs/reference/exit-codes.md.",
)
@click.version_option(package_name="mainspring", prog_name="mainspring")
def cli() -> None:
    """Mainspring: the production half of machine learning."""


def main() -> None:
    """Run the command line and exit."""
    with exits_beside_threads():
        reserve_little()
        sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line and return the exit code.

    Raises:
        SystemExit: The command itself exits.
    """
    try:
        code = cli.main(args=arguments, prog_name="mainspring", standalone_mode=False)
    except click.ClickException as error:
        return _misused(error, arguments)
    except click.Abort:
        return 130
    return code if isinstance(code, int) else 0


def _misused(error: click.ClickException, arguments: list[str]) -> int:
    """Report wrong usage like any error, with click's usage line."""
    if isinstance(error, NoArgsIsHelpError) or "--json" not in arguments:
        error.show()
        return error.exit_code
    from mainspring.cli.call import Call, report
    from mainspring.core.errors import Invalid

    asked = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "mainspring"
    wrong = Invalid(error.format_message(), fix=f"see `{asked} --help`.")
    return report(Call(json=True, folder=None, profile=None, debug=False), wrong, error.exit_code)


if __name__ == "__main__":
    main()
