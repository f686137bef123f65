"""The depot with a network that several processes train, and what a test makes its ranks do."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from kit.depot import Depot, copied

# A line of `steer`: RANK STEP DEED, done by that rank at its row of that number, in the first attempt alone.
NETWORK = '''\
"""Will the parcel come late? A network."""

import os
import signal
import time
from pathlib import Path

import mainspring as ms
from parcels.features import HubLoad, Parcel, deliveries, observations


def steered(step):
    """Do what the file `steer` asks of this rank at this step."""
    for line in Path("steer").read_text().splitlines() if Path("steer").exists() else []:
        rank, at, deed = line.split(maxsplit=2)
        first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0" or deed.startswith("always ")
        if first and int(at) == step and os.environ.get("RANK", "0") == rank:
            exec(deed.removeprefix("always "))


@ms.model(
    "late-parcel",
    observations=observations,
    features=[HubLoad, Parcel],
    label=deliveries.late,
    task="binary",
    distributed=ms.Distributed(processes=2, restarts=2, silence_s=3),
)
def train(data: ms.TrainingSet, run: ms.Run):
    import torch

    def rows(part):
        return torch.from_numpy(part.X.to_numpy("float32")), torch.from_numpy(part.y).float().reshape(-1, 1)

    step = 0

    def loss(outputs, targets):
        nonlocal step
        step += torch.is_grad_enabled()
        value = torch.nn.functional.binary_cross_entropy(outputs, targets)
        steered(step)
        return value

    class Filled(torch.nn.Module):
        def forward(self, inputs):
            return torch.nan_to_num(inputs)

    torch.manual_seed(run.seed)
    network = torch.nn.Sequential(
        Filled(), torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.ReLU(), torch.nn.Linear(8, 1),
        torch.nn.Sigmoid(),
    )
    adam = torch.optim.Adam(network.parameters(), lr=0.01)
    ms.fit_torch(
        network, rows(data.train), loss, optimiser=adam, validation=rows(data.validation), epochs=EPOCHS,
        batch_size=100, run=run, checkpoint_every_steps=2, log_every=1,
    )
    Path(f"weights-{os.environ.get('RANK', '0')}.txt").write_text(
        repr({name: weights.tolist() for name, weights in network.state_dict().items()})
    )
    return network
'''


TREES = (
    NETWORK.partition("@ms.model")[0]
    + """\
@ms.model(
    "late-parcel",
    observations=observations,
    features=[HubLoad, Parcel],
    label=deliveries.late,
    task="binary",
    distributed=ms.Distributed(processes=2, restarts=2),
)
def train(data: ms.TrainingSet, run: ms.Run):
    import xgboost

    logged = run.log_metrics

    def log_metrics(values, step=0):
        logged(values, step)
        steered(step)

    run.log_metrics = log_metrics
    return ms.fit_xgboost(
        xgboost.XGBClassifier(n_estimators=20, max_depth=3, n_jobs=1), (data.train.X, data.train.y),
        validation=(data.validation.X, data.validation.y), run=run, checkpoint_every_rounds=4,
    )
"""
)


def with_network(trained: Path, root: Path, epochs: int = 4) -> Depot:
    """Return a copy of a trained project whose model is a network that two processes train."""
    return _with(trained, root, NETWORK.replace("EPOCHS", str(epochs)))


def with_trees(trained: Path, root: Path) -> Depot:
    """Return a copy of a trained project whose model are trees of XGBoost that two processes fit."""
    return _with(trained, root, TREES)


def _with(trained: Path, root: Path, model: str) -> Depot:
    depot = copied(trained, root)
    (depot.root / "parcels" / "model.py").write_text(model)
    shutil.rmtree(depot.root / "parcels" / "__pycache__", ignore_errors=True)
    return depot


def steer(depot: Depot, *lines: str) -> None:
    """Say what ranks do at which of their steps."""
    (depot.root / "steer").write_text("\n".join(lines))


def weights(depot: Depot, rank: int = 0) -> str:
    """Return the weights that a rank had at its end."""
    return (depot.root / f"weights-{rank}.txt").read_text()


def other_machine(depot: Depot, root: Path) -> Depot:
    """Return the project on another machine: its own files and state, and the stores and checkpoints of the first."""
    shutil.copytree(depot.root, root, ignore=shutil.ignore_patterns(".mainspring"))
    return Machine(root, stores=depot.state)


@dataclass
class Machine(Depot):
    """One of several machines with the project: where their stores are."""

    stores: Path = Path()

    @property
    def environment(self) -> dict[str, str]:
        places = {
            "CATALOG": f"sqlite:///{self.stores}/catalog.db",
            "LAKE": str(self.stores / "lake"),
            "ONLINE": f"sqlite:///{self.stores}/online.db",
            "TRACKING": f"sqlite:///{self.stores}/tracking.db",
            "BLOBS": str(self.stores / "bundles"),
            "LEDGER": str(self.stores / "ledger"),
            "CHECKPOINTS": str(self.stores / "shared"),
        }
        return super().environment | {f"MAINSPRING_{name}": place for name, place in places.items()}
