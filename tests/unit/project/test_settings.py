"""Settings: where they come from, which wins, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.settings import Address, Limits, Settings, Tls, Traces
from mainspring.core.time import DAY
from mainspring.project.settings import find_project, load_settings


def _load(root: Path, text: str = "", environment: dict[str, str] | None = None, **overrides: object) -> Settings:
    (root / "mainspring.toml").write_text(f'name = "shop"\nmodules = ["shop.features"]\n{text}')
    return load_settings(root, None, overrides, environment=environment or {})


def test_defaults_live_beside_the_project(tmp_path: Path) -> None:
    found = _load(tmp_path)
    assert found.project == "shop"
    assert found.profile == "local"
    assert found.lake.path == tmp_path / ".mainspring" / "lake"
    assert found.catalog.text == f"sqlite:///{tmp_path / '.mainspring' / 'catalog.db'}"
    assert found.catalog.path == tmp_path / ".mainspring" / "catalog.db"
    assert found.gateway.loopback
    assert found.control.loopback


def test_flags_beat_the_environment_which_beats_the_profile_which_beats_the_default(tmp_path: Path) -> None:
    text = '[profiles.local]\ngateway = "127.0.0.1:1"\nmonitor_window = "2h"\nmaterialise_every = "3h"\n'
    environment = {"MAINSPRING_GATEWAY": "127.0.0.1:2", "MAINSPRING_MONITOR_WINDOW": "4h"}
    found = _load(tmp_path, text, environment, gateway="127.0.0.1:3")
    assert found.gateway.port == 3
    assert found.monitor_window_us == 4 * 3_600_000_000
    assert found.materialise_every_us == 3 * 3_600_000_000
    assert found.control.port == 8081


@pytest.mark.parametrize(("profile", "environment", "found"), [(2, "0", 2), (2, "3", 3), (0, "1", 1), (2, None, 2)])
def test_the_environment_asks_for_more_approvals_and_never_for_fewer(
    tmp_path: Path, profile: int, environment: str | None, found: int
) -> None:
    given = {} if environment is None else {"MAINSPRING_APPROVALS": environment}
    assert _load(tmp_path, f"[profiles.local]\napprovals = {profile}\n", given).approvals == found


def test_neither_the_environment_nor_another_profile_trusts_other_signers_of_models(tmp_path: Path) -> None:
    strict = '[profiles.local]\nmodels_signed_by = "vendors.pem"\n'
    vendors, mine = tmp_path / "vendors.pem", {"MAINSPRING_MODELS_SIGNED_BY": "mine.pem"}
    for given in ("", "mine.pem"):
        environment = {"MAINSPRING_MODELS_SIGNED_BY": given}
        assert _load(tmp_path, strict, environment).models_signed_by == (vendors,)
    assert _load(tmp_path, "", mine).models_signed_by == (tmp_path / "mine.pem",)
    lax = {"MAINSPRING_PROFILE": "lax"}
    assert _load(tmp_path, f"{strict}[profiles.lax]\n", lax).models_signed_by == (vendors,)
    assert _load(tmp_path, f'{strict}[profiles.lax]\ncatalog = "sqlite:///o.db"\n', lax).models_signed_by == ()


def test_a_profile_is_chosen_by_flag_environment_or_file(tmp_path: Path) -> None:
    (tmp_path / "mainspring.toml").write_text(
        'name = "shop"\nprofile = "a"\n[profiles.a]\n[profiles.b]\n[profiles.c]\n'
    )
    chosen = {"MAINSPRING_PROFILE": "b"}
    assert load_settings(tmp_path, environment={}).profile == "a"
    assert load_settings(tmp_path, environment=chosen).profile == "b"
    assert load_settings(tmp_path, "c", environment=chosen).profile == "c"
    with pytest.raises(NotFound, match="'d'"):
        load_settings(tmp_path, "d", environment={})


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[profiles.local]\ngatway = '127.0.0.1:1'\n", "gatway"),
        ("[profiles.local]\ngateway = 'here'\n", "here"),
        ("[profiles.local]\ngateway = '127.0.0.1:99999'\n", "99999"),
        ("[profiles.local]\nclock = 'sundial'\n", "sundial"),
        ("[profiles.local]\nmonitor_window = 'soon'\n", "soon"),
        ("[profiles.local]\nmax_body_bytes = -1\n", "-1"),
        ("[profiles.local]\ncatalog = 'sqlite://x.db'\n", "x.db"),
        ("[profiles.local\n", "TOML"),
        ("colour = 'blue'\n", "colour"),
        ("[profiles.local]\nshadow_nice = 20\n", "shadow_nice is 20. Fix: write a number from 0"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, text: str, names: str) -> None:
    with pytest.raises(Invalid, match=names):
        _load(tmp_path, text)


def test_stores_in_files_live_beside_the_project_and_servers_where_they_are(tmp_path: Path) -> None:
    assert _load(tmp_path, online="lmdb:///.mainspring/online.lmdb").online.path == tmp_path / ".mainspring/online.lmdb"
    assert _load(tmp_path, online="lmdb:////var/online").online.path == Path("/var/online")
    text = "rediss://app:p%2Fw@cache.example:6380/2"
    assert _load(tmp_path, environment={"MAINSPRING_ONLINE": text}).online.text == text


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hush/hush@cache:6379/0",
        "redis://:123/hush@cache:6379/0",
        "postgresql://app:hush#hush@db/features",
        "postgresql://app:hush?hush@db/features",
        "postgresql://app:hush@db:port/features",
        "redis://[hush",
    ],
)
def test_an_address_with_an_unescaped_password_is_refused_and_not_shown(tmp_path: Path, url: str) -> None:
    with pytest.raises(Invalid, match="online is not a valid address") as caught:
        _load(tmp_path, online=url)
    assert "hush" not in str(caught.value)
    assert caught.value.__context__ is None or "hush" not in repr(caught.value.__context__)


def test_a_password_is_in_no_printed_settings(tmp_path: Path) -> None:
    found = _load(tmp_path, online="postgresql://app:hush@db.example/features?sslpassword=hush")
    assert "hush" not in repr(found)
    assert "postgresql://app:***@db.example/features" in repr(found)


def test_a_replayed_clock_is_for_loopback_only(tmp_path: Path) -> None:
    assert _load(tmp_path, "[profiles.local]\nclock = 'replay'\n").clock == "replay"
    for plane in ("gateway", "control", "grpc"):
        with pytest.raises(Invalid, match=r"0\.0\.0\.0"):
            _load(tmp_path, f"[profiles.local]\nclock = 'replay'\n{plane} = '0.0.0.0:9080'\n")


def test_tracing_is_off_unless_there_is_an_address(tmp_path: Path) -> None:
    assert _load(tmp_path).traces is None
    assert _load(tmp_path, "[profiles.local]\ntraces_share = 0.5\n").traces is None
    text = "[profiles.local]\ntraces = 'http://127.0.0.1:4318/'\ntraces_share = 0.25\n"
    assert _load(tmp_path, text).traces == Traces("http://127.0.0.1:4318", 0.25)
    assert _load(tmp_path, text, {"MAINSPRING_TRACES": ""}).traces is None
    assert _load(tmp_path, text, {"MAINSPRING_TRACES_SHARE": "0"}).traces == Traces("http://127.0.0.1:4318", 0.0)
    for address in ("http://localhost:4318", "http://[::1]:4318", "https://collector.example/otlp"):
        assert _load(tmp_path, traces=address).traces == Traces(address)


def test_spans_leave_the_machine_in_clear_only_where_that_is_said(tmp_path: Path) -> None:
    environment = {"MAINSPRING_TRACES": "http://collector.example:4318"}
    for told in ({}, {"MAINSPRING_TRACES_IN_CLEAR": "false"}):
        with pytest.raises(Invalid, match=r"collector\.example without encryption"):
            _load(tmp_path, environment=environment | told)
    found = _load(tmp_path, environment=environment | {"MAINSPRING_TRACES_IN_CLEAR": "true"})
    assert found.traces == Traces("http://collector.example:4318")
    assert _load(tmp_path, traces="http://collector.example", traces_in_clear=True).traces is not None


def test_metrics_are_pushed_nowhere_unless_there_is_an_address(tmp_path: Path) -> None:
    assert _load(tmp_path).metrics == ""
    text = "[profiles.local]\nmetrics = 'http://127.0.0.1:4318/'\n"
    assert _load(tmp_path, text).metrics == "http://127.0.0.1:4318"
    with pytest.raises(Invalid, match=r"metrics would send metrics to collector\.example without encryption"):
        _load(tmp_path, metrics="http://collector.example:4318")
    found = _load(tmp_path, metrics="http://collector.example:4318", metrics_in_clear=True)
    assert found.metrics == "http://collector.example:4318"
    with pytest.raises(Invalid, match="metrics must be a plain address"):
        _load(tmp_path, metrics="https://me:hush@collector.example")


@pytest.mark.parametrize(
    "address",
    ["collector:4318", "grpc://127.0.0.1:4317", "https://", "https://me:hush@collector.example",
     "https://collector.example?key=hush", "https://collector.example#hush", "https://collector.example:hush",
     "https://[hush", "http://127.0.0.1:4318@hush.example"],
)  # fmt: skip
def test_what_is_no_address_of_a_collector_is_refused_and_not_shown(tmp_path: Path, address: str) -> None:
    with pytest.raises(Invalid, match=r"traces (is not|must be)") as caught:
        _load(tmp_path, traces=address)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("traces_share", 1.5), ("traces_share", "nan"), ("traces_share", True), ("traces_share", "some"),
     ("traces_share", -0.1), ("traces_in_clear", "perhaps"), ("traces_in_clear", 1)],
)  # fmt: skip
def test_a_share_is_from_0_to_1_and_a_flag_true_or_false(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(Invalid, match=f"{name} is"):
        _load(tmp_path, traces="http://127.0.0.1:4318", **{name: value})


def test_an_hour_of_training_has_a_price_or_none(tmp_path: Path) -> None:
    assert _load(tmp_path).training_price is None
    assert _load(tmp_path, environment={"MAINSPRING_TRAINING_PRICE": "0.85 EUR"}).training_price == (0.85, "EUR")
    for wrong in ("0.85", "EUR 1", "-1 EUR", "nan EUR", "inf EUR", "1 euro", 2):
        with pytest.raises(Invalid, match="training_price is"):
            _load(tmp_path, training_price=wrong)


def test_grpc_is_off_unless_it_has_an_address_of_its_own(tmp_path: Path) -> None:
    assert _load(tmp_path).grpc is None
    for written in ("grpc = '127.0.0.1:8082'\n", "[profiles.local.grpc]\naddress = '127.0.0.1:8082'\n"):
        assert _load(tmp_path, f"[profiles.local]\n{written}").grpc == Address("127.0.0.1", 8082)
    tls = "gateway_tls_cert = 'a.pem'\ngateway_tls_key = 'b.pem'\ngrpc = '127.0.0.1:8082'\n"
    assert _load(tmp_path, f"[profiles.local]\n{tls}").grpc == Address("127.0.0.1", 8082, secure=True)
    with pytest.raises(Invalid, match="gateway and gRPC have the same address"):
        _load(tmp_path, grpc="127.0.0.1:8080")


def test_a_project_is_found_from_below(tmp_path: Path) -> None:
    _load(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert find_project(tmp_path / "a" / "b") == tmp_path.resolve()


def test_no_project_says_how_to_begin_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        find_project(tmp_path)
    assert "mainspring init" in str(caught.value.fix)


# The gateway's processes, limits and certificates


def test_a_planes_settings_may_stand_in_a_table_of_their_own(tmp_path: Path) -> None:
    text = """
[profiles.local.gateway]
address = "127.0.0.1:7000"
workers = 4
max_connections = 10
idle_timeout = "5s"
[profiles.local.control]
address = "127.0.0.1:7001"
"""
    found = _load(tmp_path, text, {"MAINSPRING_GATEWAY_MAX_CONNECTIONS": "20"})
    assert (found.gateway, found.control.port) == (Address("127.0.0.1", 7000), 7001)
    assert found.gateway_workers == 4
    assert found.gateway_limits == Limits(connections=20, idle_us=5_000_000)


def test_limits_are_those_of_the_code_where_nothing_is_set(tmp_path: Path) -> None:
    found = _load(tmp_path)
    assert found.gateway_limits == Limits()
    assert (found.gateway_workers, found.gateway_tls, found.control_tls) == (1, None, None)


def test_as_many_processes_as_processors(tmp_path: Path) -> None:
    assert _load(tmp_path, gateway_workers="auto").gateway_workers == len(os.sched_getaffinity(0))
    assert _load(tmp_path, grpc_workers="auto").grpc_workers == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("2GB", 2 * 10**9), ("1.5 GiB", 3 << 29), ("300MB", 3 * 10**8), (12_000_000, 12_000_000), ("7B", 7)],
)
def test_the_memory_of_models_is_shared_by_the_processes_that_serve(tmp_path: Path, text: str, nbytes: int) -> None:
    assert _load(tmp_path).memory_a_process is None
    assert _load(tmp_path, gateway_memory=text).memory_a_process == nbytes
    several = _load(tmp_path, gateway_memory=text, gateway_workers=2, grpc="127.0.0.1:7009", grpc_workers=2)
    assert several.memory_a_process == nbytes // 4
    assert several.serving_processes == 4


def test_certificates_lie_where_the_project_says_and_make_the_address_https(tmp_path: Path) -> None:
    found = _load(tmp_path, gateway_tls_cert="tls/a.pem", gateway_tls_key="/etc/a.key", gateway_tls_client_ca="ca.pem")
    assert found.gateway_tls == Tls(tmp_path / "tls/a.pem", Path("/etc/a.key"), tmp_path / "ca.pem")
    assert found.gateway.url == "https://127.0.0.1:8080"
    assert found.control.url == "http://127.0.0.1:8081"
    assert found.control_tls is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("gateway_workers", 0, "gateway_workers is 0"),
        ("gateway_workers", "many", "gateway_workers is 'many'"),
        ("grpc_workers", 0, "grpc_workers is 0"),
        ("gateway_memory", "much", "gateway_memory is 'much'"),
        ("gateway_memory", "0GB", "gateway_memory is '0GB'"),
        ("gateway_memory", 5, 'gateway_memory is 5.*a unit, such as gateway_memory = "2GB"'),
        ("training_runner", "spark", "training_runner is 'spark'.*use one of local, ray"),
        ("checkpoints", "ftp://host/folder", "checkpoints is 'ftp://host/folder'.*s3://bucket/prefix"),
        ("gateway_devices", ["gpu"], "gateway_devices has 'gpu'"),
        ("gateway_devices", "cuda:0", r"gateway_devices is 'cuda:0'.*gateway_devices = \[\"cuda:0\"\]"),
        ("gateway_device_memory", "all", "gateway_device_memory is 'all'"),
        ("gateway_max_connections", -1, "gateway_max_connections is -1"),
        ("gateway_max_header_bytes", 100, "gateway_max_header_bytes is 100.*8192"),
        ("gateway_idle_timeout", "soon", "gateway_idle_timeout is 'soon'"),
        ("gateway_drain_timeout", 0, "gateway_drain_timeout is 0"),
        ("gateway_tls_cert", "a.pem", "no gateway_tls_key"),
        ("gateway_tls_key", "a.key", "no gateway_tls_cert"),
        ("control_tls_client_ca", "ca.pem", "no control_tls_cert"),
        (
            "gateway_worker",
            2,
            "unknown settings.*gateway_worker'.*did you mean 'gateway_workers'",
        ),
    ],
)
def test_a_limit_that_cannot_be_is_named(tmp_path: Path, name: str, value: object, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        _load(tmp_path, **{name: value})


def test_both_planes_on_one_port_are_refused_with_tls_too(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="give them different ports"):
        _load(tmp_path, control="127.0.0.1:8080", gateway_tls_cert="a", gateway_tls_key="b")


def test_predictions_are_kept_for_as_long_as_labels_may_need_them(tmp_path: Path) -> None:
    (tmp_path / "mainspring.toml").write_text('name = "small"\n')
    assert load_settings(tmp_path, environment={}).keep_predictions_us is None
    kept = load_settings(tmp_path, environment={"MAINSPRING_KEEP_PREDICTIONS": "90d"})
    assert kept.keep_predictions_us == 90 * DAY
    with pytest.raises(Invalid, match="30d"):
        load_settings(tmp_path, environment={"MAINSPRING_KEEP_PREDICTIONS": "30d"})
