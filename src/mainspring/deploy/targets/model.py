"""Deployments, the pieces of which a target makes them, and plans."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Action = Literal["make", "change", "keep", "remove"]
State = Literal["absent", "starting", "ready", "failed"]
FILE = "File"  # kind of the pieces that are files of a folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """An endpoint as it is deployed.

    Attributes:
        version: Version that it serves, `NAME:NUMBER`; empty where it follows the catalog.
        bundle: SHA-256 of the bundle of that version, hexadecimal; empty likewise.
        deadline_ms: Of its requests.
        memory: Measured memory of the loaded model, bytes; 0 if it was not measured.
        arms: Versions of a rollout with their shares of the requests, the champion first; empty without one.
        metrics: Of that version, held out.
        lineage: What it was made of, such as its run.
    """

    endpoint: str
    model: str
    version: str = ""
    bundle: str = ""
    deadline_ms: float = 50.0
    memory: int = 0
    arms: tuple[tuple[str, float], ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    lineage: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A project at a target: what each kind of target makes pieces of.

    Attributes:
        target: Name of the target, an id.
        profile: Profile of the project that is used there.
        services: Endpoints, by name.
        image: Container image with Mainspring and the project; empty where the kind needs none.
        replicas: Least and most gateways.
        cpu: Cores of one gateway.
        memory: Bytes of one gateway.
        gpus: Whole GPUs of one gateway.
        port: Of the gateway.
        env: Variables of the processes, none of them secret.
        secrets: Names of variables whose values the place gives; no value of theirs is in any piece.
        region: Region of a cloud; empty where there is none.
        worker: Whether the worker and the console are deployed, too.
    """

    project: str
    target: str
    profile: str
    services: tuple[Service, ...]
    image: str = ""
    replicas: tuple[int, int] = (1, 1)
    cpu: float = 1.0
    memory: int = 1 << 30
    gpus: int = 0
    port: int = 8080
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    region: str = ""
    worker: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Resources of a piece while it exists, from which its price follows.

    Attributes:
        instance: `PROVIDER/REGION/INSTANCE` of the catalogue of prices; empty: priced by `cpu`, `memory` and `gpus`.
        count: How many of it there are at least.
        most: How many there may be; 0: no more than `count`.
        surcharge: Share that a managed service asks on top of the instance's list price.
        memory, storage: Bytes.
    """

    instance: str = ""
    count: int = 1
    most: int = 0
    surcharge: float = 0.0
    cpu: float = 0.0
    memory: int = 0
    gpus: int = 0
    storage: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One thing that a target makes: a file, an object of Kubernetes, a resource of a cloud.

    Attributes:
        id: `KIND/NAME`, unique in its target.
        content: What is sent or written: the same bytes for the same deployment.
        after: Pieces that must be there before it.
        needs: `None` for what costs nothing by itself.
    """

    id: str
    content: bytes
    after: tuple[str, ...] = ()
    needs: Needs | None = None

    @property
    def kind(self) -> str:
        return self.id.partition("/")[0]

    @property
    def name(self) -> str:
        return self.id.partition("/")[2]

    @property
    def digest(self) -> str:
        """SHA-256 of the content, hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True)
class Seen:
    """A piece as it is found at the target.

    Attributes:
        digest: Of the content from which it was made; empty if it is absent or was changed by somebody else.
        why: What the target says of it, such as why it failed.
    """

    state: State
    digest: str = ""
    why: str = ""


ABSENT = Seen("absent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Record of a piece that was made, or is half made.

    Attributes:
        position: Its place in the order in which the target's pieces are made.
        digest: Of the content with which it was made last.
        done: False from before a change until after it: the piece may be there or not, and in either form.
        at: Time of the record, UTC epoch microseconds.
    """

    piece: str
    position: int
    digest: str
    done: bool
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One step of a plan, with the reason for it."""

    piece: str
    action: Action
    why: str
    needs: Needs | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Difference between a deployment and what is at its target.

    Attributes:
        changes: One for each piece, in the order in which they are done; removals come last.
        problems: Reasons for which the target would refuse it or could not run it. A plan with any is not applied.
    """

    target: str
    changes: tuple[Change, ...]
    problems: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether everything is there already."""
        return all(change.action == "keep" for change in self.changes)


@dataclass(frozen=True, slots=True)
class Happened:
    """A change has begun or, with `done`, is complete: the `number`-th of `of`."""

    change: Change
    number: int
    of: int
    done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceStatus:
    """A piece of a deployment now.

    Attributes:
        state: `changed` where somebody else changed it, `half made` where a deployment or removal was cut off.
    """

    piece: str
    state: Literal["absent", "starting", "ready", "failed", "changed", "half made"]
    why: str = ""
