"""The attacks of the Adversarial Robustness Toolbox, run in an environment of their own against a gateway over HTTP.

Arguments: the file of arrays, and as JSON the requests' addresses by policy, the `Authorization` header, budgets, seed.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
import torch
from art.attacks.extraction import CopycatCNN, KnockoffNets
from art.attacks.inference.membership_inference import MembershipInferenceBlackBox
from art.estimators.classification import BlackBoxClassifier, PyTorchClassifier

CLASSES, AT_ONCE, EPOCHS = 10, 200, 60
Array = np.ndarray[Any, Any]
_open = build_opener(ProxyHandler({})).open


def ask(address: str, authorization: str, rows: Array) -> Array:
    """Return what the gateway answers, shape (rows, classes)."""
    found = []
    for begin in range(0, len(rows), AT_ONCE):
        part = np.asarray(rows[begin : begin + AT_ONCE], np.float32)
        tensor = {"name": "x", "shape": list(part.shape), "datatype": "FP32", "data": part.ravel().tolist()}
        headers = {"authorization": authorization, "content-type": "application/json"}
        with _open(Request(address, json.dumps({"inputs": [tensor]}).encode(), headers), timeout=60) as reply:
            found.append(np.array(json.load(reply)["outputs"][0]["data"], np.float32).reshape(-1, CLASSES))
    return np.concatenate(found)


def thief(seed: int) -> PyTorchClassifier:
    torch.manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, CLASSES))
    return PyTorchClassifier(
        network, torch.nn.CrossEntropyLoss(), (64,), CLASSES, torch.optim.Adam(network.parameters(), lr=3e-3)
    )


def main() -> None:
    arrays, asked = np.load(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    held, elsewhere, test = (arrays[name].astype(np.float32) for name in ("held", "elsewhere", "test"))
    truth, found = arrays["said"], {}
    for policy, address in asked["addresses"].items():
        victim = BlackBoxClassifier(lambda rows, to=address: ask(to, asked["key"], rows), (64,), CLASSES)
        for budget in asked["budgets"]:
            shared = {"batch_size_fit": 32, "batch_size_query": AT_ONCE, "nb_epochs": EPOCHS, "nb_stolen": budget}
            attacks = {
                "KnockoffNets": (KnockoffNets(victim, use_probability=True, verbose=False, **shared), held),
                "CopycatCNN": (CopycatCNN(victim, use_probability=True, **shared), elsewhere),
            }
            for name, (attack, pool) in attacks.items():
                np.random.seed(asked["seed"])  # the toolbox draws from it
                copy = attack.extract(pool, thieved_classifier=thief(asked["seed"]))
                agreed = copy.predict(test).argmax(axis=1) == truth
                found[f"{name}, {budget} queries, {policy}"] = round(float(agreed.mean()), 3)
        members, others = (arrays[name].astype(np.float32) for name in ("members", "others"))
        labels = {name: np.eye(CLASSES)[arrays[f"{name}_labels"]] for name in ("members", "others")}
        half = len(members) // 2
        attack = MembershipInferenceBlackBox(victim, attack_model_type="rf")
        attack.fit(members[:half], labels["members"][:half], others[:half], labels["others"][:half])
        hits = attack.infer(members[half:], labels["members"][half:]).mean()
        false = attack.infer(others[half:], labels["others"][half:]).mean()
        found[f"MembershipInferenceBlackBox, {policy}"] = round(float((hits + 1 - false) / 2), 3)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
