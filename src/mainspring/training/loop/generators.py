"""Random generators of a training: Python's, NumPy's and PyTorch's."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from mainspring.training.loop.tensors import import_torch


def seed_generators(seed: int, rank: int = 0) -> None:
    """Seed all generators, on each rank of a training otherwise, so that no two drop the same units."""
    if rank:
        seed = int(np.random.default_rng([seed % 2**63, rank]).integers(2**62))
    random.seed(seed)
    np.random.seed(seed % 2**32)
    import_torch().manual_seed(seed)


def generator_states() -> dict[str, Any]:
    """Return the generators' states in a form that a checkpoint can store."""
    torch = import_torch()
    kind, keys, *rest = np.random.get_state(legacy=True)
    version, words, gauss = random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return {
        "python": [version, torch.tensor(words), gauss],
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys, np.int64)),
            *(each.item() if hasattr(each, "item") else each for each in rest),
        ],
        "torch": torch.get_rng_state(),
        "cuda": list(cuda),
    }


def restore_generators(states: dict[str, Any]) -> None:
    """Restore the states returned by `generator_states`."""
    torch = import_torch()
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
