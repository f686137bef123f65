"""Attacks that other systems of this field have suffered, against a project that is up; in the deep run also under -O.

The attack table of docs/explanation/threat-model.md has one row for each test here.
"""

from __future__ import annotations

import ast
import base64
import http.client
import io
import json
import os
import pickle
import re
import socket
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import onnx
import pytest
from onnx import TensorProto

from kit import prefork
from kit.depot import ENDPOINT, MODEL, Answer, Up, copied, inputs, keyed, opened
from kit.depth import DEEP, deep
from kit.models import mlp
from kit.planes import DOOR, PROBES, SIGNED, Route, all_routes, filled
from mainspring.core.time import DAY
from mainspring.security.keys import issue
from mainspring.security.model import Account, Grant, KeyScope, Kind, Role

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/explanation/threat-model.md"
INFER = f"/v2/models/{ENDPOINT}/infer"
ORIGIN = "https://evil.example"
CANARY = "canary-3f9c51d2"  # in a file and in a secret that nobody may see
COMMANDS = """\
import contextlib, io, json, sys
from mainspring.cli.main import run
ended = []
for arguments in json.load(sys.stdin):
    told = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
        try:
            code = run(arguments)
        except SystemExit as error:
            code = error.code
    ended.append((code, told.getvalue()))
print(json.dumps([sys.flags.optimize, ended]))
"""

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Target:
    """A project that is up, and what an attacker could be after."""

    up: Up
    optimised: bool
    admin: str
    viewer: str  # the key of an account with that role alone
    routes: tuple[Route, ...]
    secrets: tuple[str, ...]
    began: Any  # the processes at the start

    def ask(self, method: str, path: str, content: Any = None, *, plane: str = "control", **headers: str) -> Answer:
        """Send a request as the administrator, unless `headers` say otherwise, and see that the answer leaks nothing.

        A body that is not bytes is sent as JSON.
        """
        sent = {"Authorization": f"Bearer {self.admin}"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        connection = http.client.HTTPConnection("127.0.0.1", getattr(self.up.depot, plane), timeout=30)
        try:
            body = content if isinstance(content, bytes | None) else json.dumps(content).encode()
            connection.request(method, path, body, {name: value for name, value in sent.items() if value})
            reply = connection.getresponse()
            answer = Answer(reply.status, dict(reply.getheaders()), reply.read().decode(errors="replace"))
        finally:
            connection.close()
        self.leaks_nothing(answer, (plane, method, path))
        return answer

    def leaks_nothing(self, answer: Answer, asked: object) -> None:
        told = answer.text + repr(answer.headers)
        found = [word for word in (CANARY, "Traceback (most", 'File "', "root:x:", *self.secrets) if word in told]
        assert not found, (asked, found, answer.text[:500])

    def each(self, *methods: str, other: str = "something") -> Iterator[Route]:
        for plane, method, path in self.routes:
            if method in methods:
                yield plane, method, filled(path, other)

    def commands(self, *commands: list[str]) -> list[tuple[int, str]]:
        """Run commands in one process in this mode; return the exit code of each, and what it said of an error."""
        depot = self.up.depot
        done = subprocess.run(
            [prefork.programs() / "python", "-c", COMMANDS], input=json.dumps(commands), capture_output=True, text=True,
            cwd=depot.root, env=depot.environment | mode(self.optimised), timeout=120, check=True,
        )  # fmt: skip
        optimised, ended = json.loads(done.stdout)
        assert optimised == self.optimised
        return [(code, told) for code, told in ended]

    @property
    def marker(self) -> Path:
        """A file that exists only if somebody else's code ran."""
        return self.up.depot.root / "owned"

    def state(self) -> tuple[Any, ...]:
        """What an attack could have changed: keys, versions and aliases, jobs, routes."""
        project = opened(self.up.depot)
        try:
            return (
                [(key.id, key.revoked_at) for key in project.key_store.all()],
                [version.digest for version in project.versions.all()],
                project.versions.moves(MODEL),
                project.routes.revision(),
                sorted(project.accounts.all(), key=lambda each: each.id),
            )
        finally:
            project.engine.dispose()


def some(choices: Sequence[Any], turn: int) -> Sequence[Any]:
    """Return one of the choices in turns; in the deep run all."""
    return choices if DEEP else [choices[turn % len(choices)]]


def mode(optimised: bool) -> dict[str, str]:
    return {"PYTHONOPTIMIZE": "1"} if optimised else {}


# Under -O the gate tries all that `kit.refusals` lists (test_without_assertions), and it looks for assertions.
@pytest.fixture(scope="module", params=[False, pytest.param(True, marks=deep)], ids=["usual", "-O"])
def target(
    request: pytest.FixtureRequest, trained: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    depot = copied(trained[0], tmp_path_factory.mktemp("attacked") / "depot")
    (depot.root / "private.txt").write_text(CANARY)
    environment = mode(request.param) | {"MAINSPRING_WEBHOOK_SECRET": CANARY}
    with depot.up(environment=environment, real=request.param) as up:
        up.until_serving()
        project = opened(depot)
        project.accounts.add(Account("viewer", Kind.USER, "viewer"))
        project.accounts.grant(Grant("user", "viewer", Role.VIEWER, "project"))
        viewer = issue(
            project.key_store, name="viewer", scopes=tuple(KeyScope), lifetime_us=DAY, clock=project.wall,
            pepper=project.pepper, owner="viewer",
        )  # fmt: skip
        project.engine.dispose()
        kept = [path.read_bytes() for path in (depot.state / "keys").iterdir() if path.is_file()]
        shown = [text for each in kept if len(each) >= 16 for text in (each.hex(), base64.b64encode(each).decode())]
        admin = up.document["admin_key"]
        secrets = (*shown, admin.rsplit("_", 1)[1], str(depot.state))
        made = Target(up, request.param, admin, viewer, all_routes(depot), secrets, up.running["children"])
        yield made
        assert up.running["children"] == made.began  # nothing ended or was restarted
        assert made.ask("POST", INFER, keyed("p"), plane="gateway").status == 200


@dataclass
class Listener:
    port: int
    reached: list[bytes] = field(default_factory=list)


@contextmanager
def listening() -> Iterator[Listener]:
    """A server that nobody has a reason to reach."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = Listener(server.getsockname()[1])

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(2)
                    made.reached.append(connection.recv(1000))

        threading.Thread(target=accept, daemon=True).start()
        yield made
        server.shutdown(socket.SHUT_RDWR)


class Payload:
    """It makes a file once it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def test_work_is_not_given_to_strangers(target: Target) -> None:
    """Ray, CVE-2023-48022: anybody who reaches the port submits a job."""
    before = target.state()
    job = {"entrypoint": f"touch {target.marker}", "argument": {"command": f"touch {target.marker}"}}
    for plane, method, path in target.each("POST", "PUT", "PATCH", "DELETE"):
        answer = target.ask(method, path, job, plane=plane, Authorization="")
        assert answer.status == 401, (plane, method, path, answer)
    for path in ("/api/jobs/", "/api/jobs", "/api/version", "/jobs", "/v2/repository/models/x/load", "/models"):
        for plane in ("gateway", "control"):
            assert target.ask("POST", path, {"entrypoint": "id"}, plane=plane, Authorization="").status == 401, path
    assert target.state() == before
    assert not target.marker.exists()
    assert target.up.document["gateway"].startswith("http://127.0.0.1:")
    assert target.up.document["control"].startswith("http://127.0.0.1:")


def test_a_page_of_another_site_gets_nothing(target: Target) -> None:
    """Ray, CVE-2025-62593: a page's own domain is made to point at 127.0.0.1."""
    before = target.state()
    form = urlencode({"key": target.admin, "next": "/"}).encode()
    kind = "application/x-www-form-urlencoded"
    opened_session = target.ask("POST", "/login", form, Authorization="", Content_Type=kind)
    cookie = opened_session.headers["set-cookie"].partition(";")[0]
    assert target.ask("GET", "/", Authorization="", Cookie=cookie).status == 200
    hosts = ("evil.example", f"evil.example:{target.up.depot.control}", "127.0.0.1.evil.example")
    for turn, (plane, method, path) in enumerate(target.each("GET", "POST", "DELETE")):
        for host in some(hosts, turn):
            answer = target.ask(method, path, None if method == "GET" else {}, plane=plane, Host=host, Cookie=cookie)
            assert answer.status in (400, 403, 421), (plane, method, path, answer)
        if plane == "control" and method != "GET":
            for key in some((f"Bearer {target.admin}", ""), turn):
                answer = target.ask(method, path, b"", Authorization=key, Cookie=cookie, Origin=ORIGIN)
                assert answer.status == 403, (method, path, answer)
            answer = target.ask(method, path, b"a=b", Authorization="", Cookie=cookie, Content_Type=kind)
            assert answer.status in (400, 401, 403, 415), (method, path, answer)  # without the session's token
    assert target.state() == before


CLIMBS = (
    "..", "..%2f..%2f..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fprivate.txt", "..%252f..%252fprivate.txt",
    "....//private.txt", "%2fetc%2fpasswd", "file:%2f%2f%2fetc%2fpasswd", "..%5c..%5cprivate.txt", "x%00.css",
    "x%23%2f..%2f..%2fprivate.txt", "~%2fprivate.txt",
)  # fmt: skip


def test_no_name_reads_a_file(target: Target) -> None:
    """MLflow, CVE-2023-1177, CVE-2024-3848, CVE-2026-53995: a path, a fragment or an id that leads to any file."""
    for turn, (plane, method, path) in enumerate(target.routes):
        if "{" in path and method in ("GET", "POST", "DELETE"):
            for climb in some(CLIMBS, turn):
                named = re.sub(r"\{\w+\}", climb, path)
                answer = target.ask(method, named, None if method == "GET" else {}, plane=plane)
                assert answer.status < 500, (plane, method, named, answer)
    for climb in CLIMBS:
        for plane, path in (
            ("control", "/static/{}"),
            ("control", "/api/models/{}/versions"),
            ("gateway", "/v2/models/{}"),
        ):
            answer = target.ask("GET", path.format(climb), plane=plane)
            assert answer.status in (307, 400, 404, 422), (path, climb, answer)


def test_no_password_was_there_before(target: Target) -> None:
    """MLflow, CVE-2026-2635: a default password that opens every installation."""
    pairs = [
        ("admin", "admin"),
        ("admin", "password"),
        ("mainspring", "mainspring"),
        ("root", ""),
        ("admin", "password1234"),
    ]
    form = "application/x-www-form-urlencoded"
    for name, password in pairs:
        basic = "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()
        for plane, path in (("gateway", "/v2"), ("control", "/api/status"), ("control", "/")):
            for authorization in (basic, f"Bearer {password}", f"Bearer {name}"):
                assert target.ask("GET", path, plane=plane, Authorization=authorization).status in (303, 401), name
        sent = urlencode({"key": password, "username": name, "password": password, "next": "/"}).encode()
        answer = target.ask("POST", "/login", sent, Authorization="", Content_Type=form)
        assert answer.status in (401, 429), (name, answer)
        assert "set-cookie" not in {header.lower() for header in answer.headers}
    assert re.fullmatch(r"msp_[0-9a-zA-Z]+_[0-9a-zA-Z]{40,}", target.admin)


def test_no_route_is_without_a_check(target: Target) -> None:
    """MLflow, CVE-2026-2652, CVE-2026-0545: a route that was added later, and is not behind the authentication."""
    unguarded = {(plane, method, path) for plane, method, path in target.routes if path.startswith(SIGNED)}
    open_ = PROBES | {("control", "GET", "/login")}
    for turn, route in enumerate((*target.routes, *(("control", "PUT", path) for _, _, path in unguarded))):
        plane, method, path = route[0], route[1], filled(route[2])
        if route in open_ or route in DOOR:
            continue
        tricks = (f"{path}/", f"/{path}", f"/static/..{path}", f"/health/live/..{path}", f"{path}?next=/login")
        for way in (path, *some(tricks, turn)):
            answer = target.ask(method, way, None if method == "GET" else {}, plane=plane, Authorization="")
            page = plane == "control" and answer.status in (303, 307) and "/login" in answer.headers.get("location", "")
            assert answer.status in (400, 401, 404) or page, (route, way, answer)
            assert way is not path or answer.status == 401 or page, (route, answer)


def test_secrets_are_written_and_never_listed(target: Target) -> None:
    """MLflow, CVE-2026-3198: whoever is logged in lists all secrets."""
    for path in ("/api/keys", "/keys", "/api/audit"):
        assert target.ask("GET", path, Authorization=f"Bearer {target.viewer}").status == 403, path
    listed = target.ask("GET", "/api/keys").body["keys"]
    assert {name for key in listed for name in key if re.search("secret|hash|mac|token|pepper", name)} == set()
    for turn, (plane, _, path) in enumerate(target.each("GET")):  # `ask` looks for every secret in each answer
        for climb in some(CLIMBS, turn):
            asked = f"{path}?path={climb}&file={climb}&source={climb}&name={climb}#{climb}"
            assert target.ask("GET", asked, plane=plane).status < 500, asked


def test_nothing_is_unpickled(target: Target) -> None:
    """BentoML, CVE-2025-27520; vLLM, CVE-2025-32444: a pickle in the body of a request, or on a socket."""
    kinds = ("application/octet-stream", "application/x-pickle", "application/vnd.bentoml+pickle", "application/json")
    for protocol in (0, 2, 5):
        content = pickle.dumps(Payload(target.marker), protocol)
        for turn, (plane, method, path) in enumerate(target.each("POST", "DELETE")):
            for kind in some(kinds, turn) if DEEP or turn % 3 == protocol % 3 else ():
                answer = target.ask(method, path, content, plane=plane, Content_Type=kind)
                assert answer.status < 500, (plane, path, kind, answer)
        text = base64.b64encode(content).decode()
        asked = inputs(parcel=text, hub=text, weight=1.0, posted_at="2026-01-01T00:00:00Z")
        assert target.ask("POST", INFER, asked, plane="gateway").status < 500
        for port in (target.up.depot.gateway, target.up.depot.control):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
                raw.sendall(content + b"\r\n\r\n")
                heard = raw.recv(1000)
            assert b" 400 " in heard.partition(b"\r\n")[0] + b" " or heard == b"", heard
    assert not target.marker.exists()


def test_no_address_is_fetched(target: Target) -> None:
    """TorchServe, CVE-2023-43654; BentoML, CVE-2025-54381: the server fetches what a caller names."""
    with listening() as listener:
        url = f"http://127.0.0.1:{listener.port}/model.onnx"
        names = ("url", "uri", "source", "model", "path", "callback", "webhook", "image", "file", "jku", "next", "name")
        body = {**dict.fromkeys(names, url), "parameters": dict.fromkeys(names, url)}
        for turn, (plane, method, path) in enumerate(target.each("POST")):
            for ask in some((path, f"{path}?{urlencode(dict.fromkeys(names, url))}"), turn):
                assert target.ask(method, ask, body, plane=plane).status < 500, (plane, ask)
        for plane in ("gateway", "control"):
            for path in (
                f"/models?url={url}",
                f"/v2/repository/models/x/load?url={url}",
                "/v2/repository/models/x/load",
            ):
                assert target.ask("POST", path, body, plane=plane).status in (400, 401, 403, 404, 405, 409), path
        for asked in (inputs(parcel=url, hub=url, weight=1.0, posted_at="2026-01-01T00:00:00Z"), keyed("p") | body):
            assert target.ask("POST", INFER, asked, plane="gateway").status < 500
        token = ".".join(
            base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode()
            for each in ({"alg": "RS256", "jku": url, "x5u": url, "kid": url}, {"iss": url, "aud": url, "sub": "a"}, {})
        )
        for plane, path in (("gateway", "/v2"), ("control", "/api/status")):
            assert target.ask("GET", path, plane=plane, Authorization=f"Bearer {token}").status == 401
        [first, second] = target.commands(["models", "add", "fetched", url], ["models", "import", url])
        assert first[0] != 0
        assert second[0] != 0
    assert listener.reached == []


def test_code_beside_a_model_does_not_run(target: Target) -> None:
    """vLLM, CVE-2026-22807: code in a model's folder runs when the model is loaded."""
    depot = target.up.depot
    project = opened(depot)
    live = {arm.version for route in project.routes.current().values() for arm in route.arms}
    [other] = [each for each in project.versions.all(MODEL) if each.version not in live]
    project.engine.dispose()
    code = f"import os; os.system('touch {target.marker}')\n"
    [folder] = depot.state.glob(f"bundles/**/{other.digest}")
    for name in ("model.py", "__init__.py", "sitecustomize.py", "custom_generate.py"):
        (folder / name).write_text(code)
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "model.Model"}}))
    answer = target.ask("POST", f"/api/models/{MODEL}/versions/{other.version}/promote", {"reason": "attack"})
    assert answer.status >= 400, answer
    for path in (f"/api/models/{MODEL}/versions/{other.version}/card", f"/models/{MODEL}/versions/{other.version}"):
        target.ask("GET", path)
    [(code_of_show, _)] = target.commands(["models", "card", f"{MODEL}:{other.version}"])
    assert code_of_show != 0
    assert target.ask("POST", INFER, keyed("p"), plane="gateway").status == 200  # by the version that is live
    assert not target.marker.exists()


def test_no_check_is_an_assertion(target: Target) -> None:
    """vLLM, CVE-2026-41523: a check that is an `assert`, which -O removes."""
    for pid in target.began.values():
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert (b"PYTHONOPTIMIZE=1" in environment) is target.optimised
    found = [
        f"{path}:{node.lineno}"
        for part in (
            "core",
            "security",
            "registry",
            "console",
            "processes",
            "serving/http",
            "serving/grpc",
            "serving/adapters",
        )
        for path in (ROOT / "src/mainspring" / part).rglob("*.py")
        if not path.stem.endswith("conformance") and path.parent.name != "conformance"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def external() -> bytes:
    made = onnx.load_from_string(mlp())
    made.graph.initializer[0].ClearField("raw_data")
    made.graph.initializer[0].data_location = TensorProto.EXTERNAL
    made.graph.initializer[0].external_data.add(key="location", value="../private.txt")
    return made.SerializeToString()


def archived(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def test_only_plain_formats_are_taken(target: Target, tmp_path: Path) -> None:
    """torch, CVE-2025-32434; Keras, CVE-2025-1550; picklescan, CVE-2026-3490: a "safe" way to load what is not."""
    evil = pickle.dumps(Payload(target.marker))
    layer = {"class_name": "Lambda", "config": {"module": "os", "function": "system", "args": f"touch {target.marker}"}}
    exported = tmp_path / "exported.tar"
    with tarfile.open(exported, "w") as tar:
        for name in ("export.json", "export.signature", "bundles/../../evil.pkl"):
            member = tarfile.TarInfo(name)
            member.size = len(evil)
            tar.addfile(member, io.BytesIO(evil))
    files = {
        "pickle.pkl": evil,
        "pickle.onnx": evil,
        "torch.pt": archived("archive/data.pkl", evil),
        "torch.onnx": archived("archive/data.pkl", evil),
        "lambda.keras": archived("config.json", json.dumps(layer).encode()),
        "external.onnx": external(),
        "weights.safetensors": evil,
    }
    before = target.state()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    ended = target.commands(
        *(["models", "add", "taken", str(tmp_path / name)] for name in files), ["models", "import", str(exported)]
    )
    for name, (code, told) in zip((*files, exported.name), ended, strict=True):
        assert code not in (0, 1), (name, code, told)  # 1: an error of ours, not a refusal
        assert "Traceback" not in told, (name, told)
    assert target.state() == before
    assert not target.marker.exists()


def test_what_is_installed_is_locked_by_hash(target: Target) -> None:
    """LiteLLM and Lightning, spring 2026: a release of a dependency that somebody else uploaded."""
    for lock in ("requirements.lock", "requirements-dev.lock", "requirements-docs.lock"):
        lines = (ROOT / lock).read_text().replace("\\\n", " ").splitlines()
        wanted = [line for line in lines if line and not line.startswith(("#", " "))]
        assert wanted
        assert [line for line in wanted if "==" not in line or not re.search(r"--hash=sha256:[0-9a-f]{64}", line)] == []
        assert [line for line in wanted if "://" in line or line.startswith("-")] == []
    assert set(re.findall(r"pip sync|--require-hashes", (ROOT / "Makefile").read_text())) == {"--require-hashes"}
    [(code, told)] = target.commands(["sbom", "--output", "software.cdx.json"])
    assert code == 0, told


def test_an_error_names_nothing_of_ours(target: Target) -> None:
    """Triton, CVE-2025-23320: a request that is too large gets the name of an internal memory region."""
    ours = re.compile(r"mainspring[./]\w+\.py|/dev/shm|psm_|\.sock\b|site-packages| at 0x[0-9a-f]{6}|sqlite|SELECT ")
    large = b'{"inputs":[{"name":"' + b"x" * (9 << 20) + b'"}]}'
    shape = {"name": "weight", "datatype": "FP32", "data": [1.0]}
    asked = [
        ("gateway", INFER, large),
        ("gateway", INFER, {"inputs": [shape | {"shape": [2**62, 2**62]}]}),
        ("gateway", INFER, {"inputs": [shape | {"shape": [-1]}]}),
        ("gateway", INFER, {"inputs": [shape | {"shape": [1], "parameters": {"shared_memory_region": "x" * 5000}}]}),
        ("gateway", INFER, {"inputs": [shape | {"shape": [1], "parameters": {"binary_data_size": 2**63}}]}),
        ("gateway", INFER, keyed("p") | {"outputs": [{"name": "y" * 100_000}]}),
        ("gateway", INFER, keyed("p") | {"parameters": {"timeout": "x" * 1000}}),
        ("gateway", "/v2/systemsharedmemory/region/x/register", {"key": "/../x", "offset": 0, "byte_size": 2**63}),
        ("gateway", f"/v2/models/{'m' * 20_000}/infer", {}),
        ("control", "/api/keys", b"[" * 60_000),
        ("control", "/api/keys", {"name": "x" * 50_000, "scopes": ["view"], "lifetime": "9" * 400 + "w"}),
        ("control", f"/api/models/{MODEL}/versions/{'9' * 5000}/promote", {}),
        ("control", f"/api/pipelines/{'p' * 5000}/runs", {}),
        ("control", "/api/webhooks/push", b"x" * (2 << 20)),
    ]
    for plane, path, body in asked:
        try:
            answer = target.ask("POST", path, body, plane=plane)
        except (ConnectionError, http.client.HTTPException):  # closed while the body was still being sent
            continue
        assert 400 <= answer.status < 500, (path[:80], answer.status, answer.text[:300])
        assert not ours.search(answer.text), (path[:80], answer.text[:500])
    heads = {"X-Large": "x" * 70_000, "Cookie": "a=" + "b" * 60_000, "Accept": "x/" + "y" * 60_000}
    for name, value in heads.items():
        for plane, path in (("gateway", "/v2"), ("control", "/api/status")):
            answer = target.ask("GET", path, plane=plane, **{name: value})
            assert answer.status < 500, (name, answer)
            assert not ours.search(answer.text), (name, answer.text[:300])


def test_the_attack_table_has_a_row_for_each_of_these() -> None:
    table = PAGE.read_text().partition("## Known attacks")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| .* \| `(test_\w+)` \|$", table, re.MULTILINE)
    tests = [name for name in globals() if name.startswith("test_") and "attack_table" not in name]
    assert rows == tests
    identifiers = re.compile(r"CVE-\d{4}-\d+")
    for line in table.splitlines():
        if found := re.search(r"`(test_\w+)` \|$", line):
            assert identifiers.findall(line) == identifiers.findall(globals()[found[1]].__doc__), line
