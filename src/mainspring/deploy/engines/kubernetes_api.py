"""Requests to the API of a Kubernetes cluster, and where it is: in a pod by its service account, else by a kubeconfig.

Programs that a kubeconfig would run for a token (`exec`) are not run.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from mainspring.core.errors import Denied, Invalid, MissingExtra, NotFound, Unavailable
from mainspring.core.settings import Address

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # in a pod
_IN_CLUSTER = "https://kubernetes.default.svc"
_TIMEOUT_S = 30.0
_PIECE = 1 << 18
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the API."""

    status: int
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


@dataclass(frozen=True, slots=True)
class Api:
    """The API at an address.

    Args:
        server: `https://host:port`.
        tls: For `https`; `None` for a server on this machine without TLS.
        token: Token, or the file that holds the current one.
        rights: What an account has to be allowed, for the message if it is not.
    """

    server: str
    tls: ssl.SSLContext | None = None
    token: str | Path = ""
    rights: str = "let the account create, get and delete jobs, list pods and get pods/log."

    def ask(
        self,
        verb: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        last: int | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
        **query: str,
    ) -> Reply:
        """Send a request; return the answer, if it is a success, 404 or 409.

        Args:
            last: How many bytes of the answer's end are kept, for logs; by default all.
            query: Parameters; an empty one is left out.

        Raises:
            Unavailable: The API does not answer, or is overloaded.
            Denied: The account may not do this.
            Invalid: The API refuses the object.
        """
        parts = urlsplit(self.server)
        query = {name: value for name, value in query.items() if value}
        address, given = parts.netloc, f"?{urlencode(query)}" if query else ""
        connection = (
            http.client.HTTPConnection(address, timeout=_TIMEOUT_S)
            if self.tls is None
            else http.client.HTTPSConnection(address, timeout=_TIMEOUT_S, context=self.tls)
        )
        headers = {"Accept": accept, "Content-Type": content_type}
        if token := self.token.read_text().strip() if isinstance(self.token, Path) else self.token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            content = None if body is None else json.dumps(body).encode()
            connection.request(verb, f"{parts.path.rstrip('/')}{path}{given}", content, headers)
            answer = connection.getresponse()
            reply = Reply(answer.status, answer.read() if last is None else _end(answer, last))
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"The Kubernetes API at {self.server} does not answer: {error!r}.") from error
        finally:
            connection.close()
        return _checked(reply, f"{verb} {path}", self.rights)


def _end(answer: http.client.HTTPResponse, last: int) -> bytes:
    """Read an answer of any length, and return its last bytes."""
    before = content = b""
    while piece := answer.read(_PIECE):
        content += piece
        if len(content) >= last:
            before, content = content, b""
    return (before + content)[-last:]


def _checked(reply: Reply, what: str, rights: str) -> Reply:
    if reply.status < 300 or reply.status in (404, 409):
        return reply
    told = f"Kubernetes answers {reply.status} to {what}: {message(reply)}"
    if reply.status in (401, 403):
        raise Denied(told, fix=rights)
    if reply.status == 429 or reply.status >= 500:
        raise Unavailable(told)
    raise Invalid(told)


def message(reply: Reply) -> str:
    """Return what the API says in an answer that is no object."""
    try:
        return str(reply.json()["message"])[:1000]
    except (ValueError, KeyError, TypeError):
        return reply.content[:200].decode(errors="replace")


def in_cluster(account: Path = ACCOUNT) -> Api | None:
    """Return the API of the cluster that this process runs in, `None` outside of one."""
    if not (account / "token").is_file():
        return None
    return Api(_IN_CLUSTER, ssl.create_default_context(cafile=str(account / "ca.crt")), account / "token")


def from_config(document: Any, folder: Path) -> Api:
    """Return the API of a kubeconfig's current context.

    Args:
        document: Content of the file.
        folder: Its folder, which its paths are relative to.

    Raises:
        Invalid: It is not complete, or asks for what is not done: `exec`, a server that is not verified.
    """
    try:
        context = _named(document["contexts"], document["current-context"])["context"]
        cluster = _named(document["clusters"], context["cluster"])["cluster"]
        user = _named(document["users"], context["user"])["user"] or {}
        server = str(cluster["server"])
    except (KeyError, TypeError, NotFound) as error:
        raise Invalid(f"The kubeconfig in {folder} is not complete: {error}.", fix="give current-context.") from None
    if cluster.get("insecure-skip-tls-verify"):
        raise Invalid(f"The kubeconfig does not verify {server}.", fix="give certificate-authority-data instead.")
    if "exec" in user or "auth-provider" in user:
        raise Invalid(
            "The kubeconfig's user has a program that makes tokens, which is not run.",
            fix="give token, tokenFile, or a client certificate: `kubectl create token ACCOUNT` makes a token.",
        )
    token = folder / user["tokenFile"] if "tokenFile" in user else str(user.get("token", ""))
    parts = urlsplit(server)
    if parts.scheme == "http" and Address(parts.hostname or "", 0).loopback:
        return Api(server, None, token)
    if parts.scheme != "https":
        raise Invalid(f"The Kubernetes API at {server} would get the token in clear.", fix="use https.")
    tls = ssl.create_default_context()
    if authority := _file(cluster, "certificate-authority", folder):
        tls = ssl.create_default_context(cadata=authority.decode())
    certificate, key = (_file(user, f"client-{name}", folder) for name in ("certificate", "key"))
    if certificate and key:
        with tempfile.NamedTemporaryFile() as pem:  # ssl reads it from a file only; this one is the owner's alone
            pem.write(certificate + b"\n" + key)
            pem.flush()
            tls.load_cert_chain(pem.name)
    return Api(server, tls, token)


def configured(path: Path) -> Api:
    """Return the API of a kubeconfig.

    Raises:
        Invalid: It is not there, or as in `from_config`.
        MissingExtra: YAML cannot be read.
    """
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise MissingExtra("a kubeconfig (yaml)", "kubernetes") from error
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Invalid(
            f"There is no kubeconfig {path}, and this is no pod with a service account.",
            fix="set kubernetes_config, or `config` of the target, to the file's path; `mainspring targets render` "
            "needs no cluster.",
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Invalid(f"The kubeconfig {path} is not YAML: {error}.") from None
    return from_config(document, path.parent)


def _named(entries: Any, name: str) -> Any:
    for each in entries:
        if each["name"] == name:
            return each
    raise NotFound(f"there is no {name!r}")


def _file(entry: Mapping[str, Any], name: str, folder: Path) -> bytes | None:
    if f"{name}-data" in entry:
        return base64.b64decode(entry[f"{name}-data"])
    return (folder / entry[name]).read_bytes() if name in entry else None
