"""Do the attacks of the Adversarial Robustness Toolbox copy as much of a model as those of `extraction.py`?

KnockoffNets, CopycatCNN and black-box membership inference ask a gateway over HTTP, through each policy on outputs. A
copy is as good as the share of held-out rows of which it says the same class; an inference as the mean of the shares of
members and of others that it tells right: 0.5 is chance. The toolbox is in an environment of its own, which
`python bench/peers.py art` makes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from environments import PEERS, recorded
from extraction import POLICIES, Victim, elsewhere
from kit.serving import KEY, Kit, route
from kit.tensors import sealed
from kit.waiting import free_port, wait_until_async
from mainspring.core.settings import Address
from mainspring.registry.model import Bundle, TensorSpec
from mainspring.serving.http.server import serve
from mainspring.serving.model import Arm
from report import Case, report

BUDGETS = (50, 200, 800)
POOL = 800
_NOTE = "not installed: python bench/peers.py art"


def served(victim: Victim) -> Bundle:
    """Return the victim as a bundle, from `x`, FP32 of shape (rows, 64), to `y`, shape (rows, 10)."""
    constants = []
    for name, weights, bias in zip(("first", "second"), victim.model.coefs_, victim.model.intercepts_, strict=True):
        constants += [
            numpy_helper.from_array(each.astype(np.float32), f"{name}_{kind}")
            for kind, each in (("weights", weights), ("bias", bias))
        ]
    nodes = [
        helper.make_node("Gemm", ["x", "first_weights", "first_bias"], ["inner"]),
        helper.make_node("Relu", ["inner"], ["bent"]),
        helper.make_node("Gemm", ["bent", "second_weights", "second_bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["y"], axis=-1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "victim", [value("x", TensorProto.FLOAT, [None, 64])], [value("y", TensorProto.FLOAT, [None, 10])],
        constants,
    )  # fmt: skip
    rows = victim.test[:2]
    golden = {"inputs": {"x": rows.tolist()}, "outputs": {"y": victim.ask(rows).tolist()}}
    takes, gives = [TensorSpec("x", "FP32", (-1, 64))], [TensorSpec("y", "FP32", (-1, 10))]
    return sealed("victim", graph, takes, gives, golden, KEY)


async def attacked(seed: int, arrays: Mapping[str, Any], victim: Victim) -> dict[str, float]:
    """Return the toolbox's figures against a gateway that serves the victim."""
    kit, made = Kit(), served(victim)
    kit.bundles.save(made)
    policies = {"all": None, **POLICIES}
    names = {policy: f"digits-{number}" for number, policy in enumerate(policies)}
    kit.routes.publish(
        [
            msgspec.structs.replace(
                route(Arm("1", made.digest), endpoint=names[name]), outputs=() if policy is None else (policy,)
            )
            for name, policy in policies.items()
        ]
    )
    gateway, port, stop = kit.gateway(), free_port(), asyncio.Event()
    serving = asyncio.create_task(serve(gateway, Address("127.0.0.1", port), stop=stop))
    await wait_until_async(lambda: gateway.unready() is None)
    with TemporaryDirectory() as folder:
        np.savez(file := Path(folder) / "arrays.npz", **arrays)
        addresses = {policy: f"http://127.0.0.1:{port}/v2/models/{name}/infer" for policy, name in names.items()}
        asked = {"addresses": addresses, "key": kit.key(), "budgets": BUDGETS, "seed": seed}
        side = Path(__file__).with_name("extraction_art_side.py")
        child = await asyncio.create_subprocess_exec(
            str(PEERS / "art" / "bin" / "python"), str(side), str(file), json.dumps(asked),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, _ = await child.communicate()
    stop.set()
    await serving
    if child.returncode:
        raise SystemExit(f"The toolbox's side ended with {child.returncode}.")
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def measured(seed: int) -> dict[str, float]:
    victim, digits = Victim(seed), load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    train, held = order[:700], order[700:1400]
    rows = digits.data / 16.0
    arrays = {
        "held": victim.held, "elsewhere": elsewhere(victim, None, POOL, seed)[0], "test": victim.test,
        "said": victim.ask(victim.test).argmax(axis=1), "members": rows[train], "others": rows[held],
        "members_labels": digits.target[train], "others_labels": digits.target[held],
    }  # fmt: skip
    return asyncio.run(attacked(seed, arrays, victim))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    if recorded(PEERS / "art") is None:
        raise SystemExit(_NOTE)
    every = [measured(seed) for seed in range(chosen.seeds)]
    means = {name: round(float(np.mean([each[name] for each in every])), 3) for name in every[0]}
    report("extraction_art", [Case(name, "agreement", value) for name, value in means.items()])


if __name__ == "__main__":
    main()
