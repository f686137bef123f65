"""Help texts of commands: own options before the shared ones, examples, and whole sentences."""

from __future__ import annotations

from typing import Any

import click

SHARED = ("json_", "project", "profile", "debug", "_click_default_help", "help")
# command -> its examples, without the program's name; a test parses each
EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("demo", "demo --keep", "demo --rag"),
    "init": ("init courier",),
    "apply": ("apply --dry-run", "apply"),
    "ingest": ("ingest orders orders.parquet", "ingest orders courier.data:orders", "ingest orders --warehouse"),
    "streams list": ("streams list",),
    "streams show": ("streams show orders",),
    "streams dead-letters": ("streams dead-letters orders --limit 50",),
    "streams run": ("streams run", "streams run orders --to-end", "streams run late-orders"),
    "streams send": ("streams send late-orders orders.jsonl",),
    "streams seek": ("streams seek orders --to next",),
    "streams replay": ("streams replay late-orders", "streams replay late-orders --since 0:1200 --to again.jsonl"),
    "deploy": ("deploy east --dry-run", "deploy east"),
    "data batches": ("data batches orders", "data batches orders monday.csv"),
    "data commit": ("data commit -m 'before the new feed'",),
    "data diff": ("data diff before-feed now --table orders",),
    "data log": ("data log --limit 5",),
    "data profile": ("data profile orders", "data profile orders --at before-feed"),
    "data publish": ("data publish orders --epsilon 0.2 --count --mean amount:0:100 --histogram channel:web,shop",),
    "data quarantine": ("data quarantine orders --limit 50",),
    "data restore": ("data restore before-feed", "data restore before-feed --table orders"),
    "data sign": ("data sign orders orders.csv", "data sign orders orders.csv --key-file partner.key"),
    "data tag": ("data tag before-feed now",),
    "data untag": ("data untag before-feed",),
    "data vacuum": ("data vacuum --dry-run",),
    "encoders add": ("encoders add minilm", "encoders add quick --static 256"),
    "encoders list": ("encoders list",),
    "encoders show": ("encoders show minilm",),
    "collections build": ("collections build docs",),
    "collections evaluate": ("collections evaluate docs --set questions --metric recall@20",),
    "collections list": ("collections list",),
    "collections search": ("collections search docs 'the disk is full' --where section=operations",),
    "collections show": ("collections show docs",),
    "simulate": (
        "simulate late-delivery --load '50/s for 10m, 50-400/s for 2m'",
        "simulate late-delivery --since 7d --faster 2 --executors 1 --executors 0-4",
        "simulate late-delivery --load '200/s for 1h' --replicas 1-8@0.6 --machine aws/eu-west-1/c7i.large",
        "simulate late-delivery --executors 1 --executors 1-4 --apply",
    ),
    "targets destroy": ("targets destroy east",),
    "targets list": ("targets list",),
    "targets render": ("targets render east --to rendered",),
    "targets status": ("targets status east",),
    "topics create": ("topics create clicks --partitions 4",),
    "topics list": ("topics list",),
    "topics produce": ("topics produce clicks clicks.jsonl --key user",),
    "topics show": ("topics show clicks",),
    "topics tail": ("topics tail clicks --limit 20",),
    "features entity": ("features entity CourierRecord courier=ana",),
    "features explain": ("features explain late-delivery", "features explain CourierRecord --sql"),
    "features list": ("features list --search courier",),
    "features read": (
        "features read late-delivery --to training.parquet --since 2026-01-01",
        "features read late-delivery --to training.parquet --engine warehouse",
    ),
    "features show": ("features show CourierRecord",),
    "features unload": (
        "features unload late-delivery --to s3://training/late-delivery",
        "features unload CourierRecord --observations raw.orders --at ordered_at --to records",
    ),
    "features sql": ("features sql late-delivery --dialect spark --observations lake.orders",),
    "features verify": ("features verify late-delivery --sample 500",),
    "materialize": ("materialize", "materialize CourierRecord --rebuild"),
    "search": ("search late-delivery --trials 40 --workers 2", "search late-delivery --show"),
    "train": (
        "train late-delivery",
        "train late-delivery --since 2026-01-01 --until 2026-07-01",
        "train late-delivery --engine warehouse",
        "train late-delivery --without orders@monday.csv --without deliveries.courier=bo",
        "train late-delivery --processes 2",
        "train late-delivery --team routing",
        "train late-delivery --processes auto",
        "train late-delivery --machines 2 --machine 0 --meet 10.0.0.5:29400",
        "train late-delivery --plan --topology machines.toml",
        "train --plan --model llama-2-7b --gpus 8xH100 --batch 256",
    ),
    "optimize": (
        "optimize late-delivery --for edge --dry-run",
        "optimize late-delivery:3 --only int8-static --only fp16 --within 0.005",
        "optimize late-delivery@champion --choose trees-50",
        "optimize late-delivery:3 --retrain --epochs 3",
        "optimize words --rows texts.txt --within 0.1",
    ),
    "models add": ("models add late-delivery model.onnx --parent late-delivery:3",),
    "models approve": ("models approve late-delivery:4 --reason 'the false alarms are gone'",),
    "models card": ("models card late-delivery", "models card late-delivery:3 --format html --output card.html"),
    "models compose": ("models compose late-delivery-mean graph.json",),
    "models delete": ("models delete late-delivery:3 --reason 'trained on a broken day'",),
    "models export": ("models export late-delivery@champion late.tar",),
    "models function": ("models function double courier.rules:double --input x:FP32:-1,1 --output y:FP32:-1,1",),
    "models gc": ("models gc --grace 7d --dry-run",),
    "models history": ("models history late-delivery --alias champion",),
    "models import": ("models import late.tar",),
    "models exposure": ("models exposure late-delivery:3 planted.csv controls.csv",),
    "models influence": (
        "models influence late-delivery --by deliveries.courier",
        "models influence late-delivery --by deliveries --metric auc",
    ),
    "models key": ("models key",),
    "models label-issues": ("models label-issues late-delivery", "models label-issues late-delivery --folds 10 --json"),
    "models list": ("models list late-delivery",),
    "models near-duplicates": (
        "models near-duplicates late-delivery",
        "models near-duplicates late-delivery --threshold 0.9 --most 50",
    ),
    "models restore": ("models restore late-delivery:3",),
    "models sign": ("models sign late-delivery@champion published --key signer.pem",),
    "models show": ("models show late-delivery", "models show late-delivery:3"),
    "models trust": (
        "models trust",
        "models trust staging 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
    ),
    "models verify": ("models verify published --signed-by signer.pub.pem",),
    "models waive": ("models waive late-delivery:4 'auc beats by 0.005' --reason 'a new label' --until 7d",),
    "models waivers": ("models waivers late-delivery:4",),
    "models withdraw": ("models withdraw late-delivery:4 --reason 'the alarms are back'",),
    "promote": ("promote late-delivery", "promote late-delivery 3 --reason 'the new feed'"),
    "ci": ("ci --report ci-report", "ci late-delivery --deploy", "ci --emit github"),
    "rollback": ("rollback late-delivery --reason 'too many false alarms'",),
    "rollout plan": ("rollout plan late-delivery",),
    "rollout start": ("rollout start late-delivery --candidate 4 --reason 'the new feed'",),
    "rollout status": ("rollout status late-delivery",),
    "rollout stop": ("rollout stop late-delivery --reason 'the feed is late'",),
    "rollout promote": ("rollout promote late-delivery",),
    "rollout rollback": ("rollout rollback late-delivery --reason 'too many false alarms'",),
    "rollout list": ("rollout list", "rollout list late-delivery --json"),
    "up": ("up", "up --gateway 127.0.0.1:9080 --control 127.0.0.1:9081", "up --only gateway --only log"),
    "predict": ("predict late-delivery order=o7 courier=ana distance_km=3.2 ordered_at=2026-01-05T18:30:00Z",),
    "batch": (
        "batch late-delivery --from orders --to scored --as-of ordered_at",
        "batch late-delivery:3 --from 'rows/*.parquet' --to ./scores --new",
    ),
    "bench": ("bench late-delivery --connections 16 --seconds 2",),
    "console": ("console", "console --open"),
    "monitor run": ("monitor run late-delivery",),
    "monitor query": ("monitor query 'SELECT hour, sum(rows) FROM hours GROUP BY hour ORDER BY hour'",),
    "monitor skew": ("monitor skew late-delivery",),
    "incidents end-shed": ("incidents end-shed 01m8be2065zc3r951j33fy83ef --reason 'a second machine is up'",),
    "incidents list": ("incidents list", "incidents list late-delivery --all"),
    "incidents show": ("incidents show 01m8be2065zc3r951j33fy83ef",),
    "incidents own": ("incidents own 01m8be2065zc3r951j33fy83ef --owner ana",),
    "incidents silence": ("incidents silence 01m8be2065zc3r951j33fy83ef --for 8h --reason 'the feed is being moved'",),
    "incidents close": ("incidents close 01m8be2065zc3r951j33fy83ef --reason 'the feed is back'",),
    "incidents verdict": ("incidents verdict 01m8be2065zc3r951j33fy83ef false-alarm",),
    "edge build": (
        "edge build late-delivery@champion --to late-edge --stored-as-inputs",
        "edge build late-delivery:3 --to late-int8 --precision int8 --tolerance 0.01",
    ),
    "edge check": ("edge check late-edge", "edge check late-delivery@champion"),
    "edge device": ("edge device depot-7",),
    "edge devices": ("edge devices", "edge devices --condition failing"),
    "edge keys": ("edge keys",),
    "edge page": ("edge page late-edge --to late-page",),
    "edge publish": ("edge publish late-edge",),
    "edge register": (
        "edge register depot-7 --package late-delivery --to depot-7.json "
        "--key 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29 "
        "--repository https://updates.example.org --broker mqtts://mqtt.example.org",
    ),
    "edge remove": ("edge remove depot-7",),
    "edge rollout": (
        "edge rollout late-delivery 4 --rings 0.01,0.1,1 --soak 1h",
        "edge rollout late-delivery --stop --reason 'the depots complain'",
    ),
    "edge rotate": ("edge rotate timestamp",),
    "edge sign": ("edge sign",),
    "edge status": ("edge status",),
    "edge withdraw": ("edge withdraw late-delivery 4",),
    "endpoints list": ("endpoints list",),
    "endpoints show": ("endpoints show late-delivery",),
    "endpoints callers": ("endpoints callers late-delivery --last 7d",),
    "endpoints scaling": ("endpoints scaling", "endpoints scaling late-delivery --last 7d"),
    "objectives": ("objectives",),
    "quotas": ("quotas",),
    "cost show": ("cost show", "cost show --by endpoint --since 7d", "cost show --by team --spread platform"),
    "cost export": ("cost export costs.parquet --since 31d",),
    "budgets": ("budgets", "budgets --json"),
    "prices list": (
        "prices list --gpu L4",
        "prices list --provider aws --region eu-west-1 --vcpus 8 --memory 32",
        "prices list --gpu any --sort spot",
    ),
    "prices show": ("prices show", "prices show aws/eu-west-1/m7i.large"),
    "prices import": (
        "prices import index.csv --format aws --region eu-west-1",
        "prices import page-1.json --format azure",
    ),
    "export project": ("export project --to ../everything", "export project --to ../everything --reveal"),
    "export prometheus-rules": ("export prometheus-rules --output rules.yml",),
    "export prometheus-scrape": ("export prometheus-scrape --output prometheus.yml",),
    "export grafana": ("export grafana --output dashboard.json",),
    "export training": (
        "export training late-delivery --to jobset --image registry.example.org/shop:1",
        "export training late-delivery --to trainjob --machines 4 --processes 8 --gpu --queue research",
    ),
    "export training-job": (
        "export training-job late-delivery --role ROLE --folder s3://shop/jobs --image IMAGE --spot",
    ),
    "fairness": ("fairness late-delivery", "fairness late-delivery@champion --by Courier.area"),
    "predictions list": ("predictions list --endpoint late-delivery --version 3 --since 2026-01-05",),
    "predictions show": ("predictions show 01m8be2065zc3r951j33fy83ef",),
    "replay": ("replay 01m8be2065zc3r951j33fy83ef", "replay --sample 1000 --endpoint late-delivery"),
    "jobs list": ("jobs list --status failed",),
    "jobs show": ("jobs show 01m8be2065zc3r951j33fy83ef",),
    "jobs run": ("jobs run collect-garbage --wait", """jobs run collect-garbage '{"grace": "30d"}' --here"""),
    "jobs cancel": ("jobs cancel 01m8be2065zc3r951j33fy83ef",),
    "jobs retry": ("jobs retry 01m8be2065zc3r951j33fy83ef",),
    "jobs logs": ("jobs logs 01m8be2065zc3r951j33fy83ef",),
    "jobs schedules": ("jobs schedules",),
    "pipelines export": ("pipelines export nightly --to airflow",),
    "pipelines step": ('pipelines step nightly load --scope \'{"parameters": {"days": 3}}\'',),
    "pipelines list": ("pipelines list",),
    "pipelines run": ("pipelines run nightly days=30", "pipelines run nightly --here"),
    "pipelines status": ("pipelines status", "pipelines status --pipeline nightly"),
    "pipelines retry": ("pipelines retry 01m8be2065zc3r951j33fy83ef 'fit[3]'",),
    "pipelines approve": ("pipelines approve 01m8be2065zc3r951j33fy83ef go-live",),
    "pipelines cancel": ("pipelines cancel 01m8be2065zc3r951j33fy83ef",),
    "pipelines logs": ("pipelines logs 01m8be2065zc3r951j33fy83ef 'fit[3]'",),
    "pipelines graph": ("pipelines graph nightly", "pipelines graph nightly --mermaid"),
    "pipelines run-step": ("pipelines run-step 01m8be2065zc3r951j33fy83ef 'fit[3]' --pdb",),
    "explain": (
        "explain 01kd1nrgxmt5ndm1hxr9yzbq9j",
        "explain 01kd1nrgxmt5ndm1hxr9yzbq9j --sampled --budget 5000",
        "explain 01kd1nrgxmt5ndm1hxr9yzbq9j --wanted 'probability < 0.3' --mutable Schedule.hour --changes 2",
        "explain late-arrival@champion --column Schedule.hour",
    ),
    "runs list": ("runs list late-delivery --limit 5", "runs list --filter 'holdout.auc > 0.7 and started > 7d ago'"),
    "runs show": ("runs show 2d50d1c028af4b639a7348e38a9b700d",),
    "runs compare": ("runs compare 2d50d1c028af4b639a7348e38a9b700d 8e38a9b700d2d50d1c028af4b639a734",),
    "runs rename": ("runs rename 2d50d1c028af 'deeper trees'",),
    "runs note": ("runs note 2d50d1c028af 'Trained before the winter timetable.'", "runs note 2d50d1c028af ''"),
    "reproduce": ("reproduce 2d50d1c028af4b639a7348e38a9b700d",),
    "completion": ("completion bash", "completion zsh", "completion fish"),
    "keys create": (
        "keys create shop --scope predict --expires 30d",
        "keys create nightly --scope view --owner service:nightly",
    ),
    "keys list": ("keys list --all",),
    "encryption status": ("encryption status",),
    "backup make": (
        "backup make --to /backups/parcels",
        "backup make --to s3://backups/parcels --keep 30d",
    ),
    "backup list": ("backup list /backups/parcels",),
    "backup verify": ("backup verify s3://backups/parcels",),
    "restore": ("restore /backups/parcels", "restore /backups/parcels --at 2026-07-01T12:00:00Z"),
    "encryption rewrite": ("encryption rewrite", "encryption rewrite orders"),
    "encryption rotate": ("encryption rotate", "encryption rotate --data-keys"),
    "keys revoke": ("keys revoke 01m8be2bwh331ajhxkj67gs77w",),
    "prompts list": ("prompts list", "prompts list answer"),
    "prompts show": ("prompts show answer", "prompts show answer:2"),
    "prompts point": ("prompts point answer champion 3", "prompts point answer champion 3 --canary 4 --share 0.1"),
    "prompts aliases": ("prompts aliases answer",),
    "prompts diff": ("prompts diff answer", "prompts diff answer 1 3"),
    "llm approvals": ("llm approvals", "llm approvals --all"),
    "llm approve": ("llm approve 01m8be2065zc3r951j33fy83ef",),
    "llm deny": ("llm deny 01m8be2065zc3r951j33fy83ef --reason 'nobody asked for it'",),
    "answers ask": ("answers ask help 'When are refunds paid?' --key customer=c-17",),
    "answers evaluate": ("answers evaluate help --set questions",),
    "answers agreement": ("answers agreement help faithful",),
    "answers judge": ("answers judge help faithful --window 1d --most 200",),
    "answers list": ("answers list",),
    "answers promote": ("answers promote help", "answers promote help 3 --reason 'a shorter prompt'"),
    "answers rate": ("answers rate 01JZ0000000000000000000000 helpful=true",),
    "answers rollback": ("answers rollback help --reason 'it cites too little'",),
    "answers versions": ("answers versions help",),
    "answers watch": ("answers watch help --window 1d",),
    "answers replay": ("answers replay 01JZ0000000000000000000000 --no-ask",),
    "llm usage": ("llm usage --by team --since 7d",),
    "llm plan": (
        "llm plan llama-3.1-70b --gpus 8xH100",
        "llm plan ./my-model --gpus 2xL40S --context 4096 --concurrency 16 --dtype fp8 --dtype awq",
    ),
    "sbom": ("sbom --output mainspring.cdx.json", "sbom late-delivery:3 --output late-delivery.cdx.json"),
    "evidence": ("evidence gdpr", "evidence eu-ai-act --output eu-ai-act.html"),
    "audit search": ("audit search --action keys --since 2026-01-01", "audit search --resource model/late-delivery"),
    "audit export": ("audit export events.jsonl", "audit export keys.jsonl --action keys --since 2026-01-01"),
    "audit proof": ("audit proof 12",),
    "audit verify": ("audit verify", "audit verify events.jsonl"),
    "login": ("login", "login --browser"),
    "logout": ("logout",),
    "whoami": ("whoami",),
    "users add": (
        "users add ana --email ana@example.org",
        "users add ana --issuer https://login.example.org --subject 00u1a2b3",
    ),
    "users list": ("users list",),
    "users bind": ("users bind ana local:ana",),
    "users disable": ("users disable ana@example.org",),
    "users enable": ("users enable ana@example.org",),
    "users remove": ("users remove 01m8be2bwh331ajhxkj67gs77w",),
    "sessions list": ("sessions list", "sessions list --user ana@example.org"),
    "sessions end": ("sessions end --user ana@example.org --reason 'a lost laptop'",),
    "groups add": ("groups add risk", "groups add risk --provider-group CN=risk"),
    "groups list": ("groups list",),
    "groups remove": ("groups remove risk",),
    "groups add-member": ("groups add-member risk user:ana@example.org",),
    "groups remove-member": ("groups remove-member risk user:ana@example.org",),
    "service-accounts add": ("service-accounts add nightly",),
    "service-accounts list": ("service-accounts list",),
    "service-accounts bind": ("service-accounts bind nightly local:runner",),
    "service-accounts disable": ("service-accounts disable nightly",),
    "service-accounts enable": ("service-accounts enable nightly",),
    "service-accounts remove": ("service-accounts remove nightly",),
    "erase": ("erase courier ana --plan", "erase courier ana ben --reason 'asked on 3 May'", "erase --again"),
    "retention": ("retention --plan", "retention"),
    "subject export": ("subject export courier ana --output ana.zip",),
    "subject hold": ("subject hold courier ana --reason 'case 4711'",),
    "subject holds": ("subject holds",),
    "subject receipt": ("subject receipt 01JZ0000000000000000000000 --output receipt.json",),
    "subject receipts": ("subject receipts",),
    "subject release": ("subject release courier ana",),
    "subject verify": ("subject verify receipt.json",),
    "roles grant": ("roles grant engineer group:risk", "roles grant viewer user:ana --on model/late-delivery"),
    "roles revoke": ("roles revoke engineer group:risk",),
    "roles list": ("roles list",),
    "policy check": ("policy check",),
    "policy test": ("policy test policies/cases.csv",),
    "policy explain": (
        "policy explain user:ana model.promote model/late-delivery",
        "policy explain role:viewer table.rows table/orders",
    ),
    "status": ("status", "status --json"),
    "advise next": ("advise next", "advise next --json"),
    "advise size": (
        "advise size late-delivery --rate 200 --region aws/eu-west-1",
        "advise size late-delivery --on b.json",
    ),
    "advise cost": ("advise cost", "advise cost --days 30 --trip aws/eu-west-1=12"),
    "advise machine": ("advise machine --json",),
    "migrate": ("migrate --to production",),
    "profile list": ("profile list",),
    "profile check": ("profile check production",),
    "tenant plan": ("tenant plan acme --profile production",),
    "doctor": ("doctor", "doctor --profile production"),
}


def examples(context: click.Context) -> tuple[str, ...]:
    """Return the examples of a command, one complete command line each."""
    program, _, name = context.command_path.partition(" ")
    return tuple(f"{program} {example}" for example in EXAMPLES.get(name, ()))


class Command(click.Command):
    """A command whose help ends with examples."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                (shared if parameter.name in SHARED else own).append(record)
        for title, records in (("Options", own), ("Options of every command", shared)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if lines := examples(ctx):
            with formatter.section("Examples" if len(lines) > 1 else "Example"):
                for line in lines:  # not wrapped, so that it can be copied
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class Group(click.Group):
    """Group of commands, listed with the whole first sentence of their help.

    Args:
        default: The command that is meant where none is named: `mainspring runs late-delivery` lists runs.
    """

    def __init__(self, *arguments: Any, default: str = "", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._default = default
        self.no_args_is_help = not default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        asks = args[0] in ctx.help_option_names if args else ctx.resilient_parsing
        return super().parse_args(ctx, args if asks else self.completed(args))

    def completed(self, args: list[str]) -> list[str]:
        """Return the arguments with the name of the command that is meant."""
        named = bool(args) and args[0] in self.commands
        return args if named or not self._default else [self._default, *args]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(limit=10_000)))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)
