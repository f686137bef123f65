"""Quantities of Kubernetes: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/."""

from __future__ import annotations

import math
import re

_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|(m|k|[KMGTPE]i?|n|u))?")
_FACTORS = {"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3}
_FACTORS |= {letter: 10.0 ** (3 * power) for power, letter in enumerate("MGTPE", 2)}
_FACTORS |= {f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", 1)}


def quantity(text: str | float) -> float:
    """Return the number of a quantity.

    Raises:
        ValueError: It is none.
    """
    parts = _FORM.fullmatch(str(text).strip())
    if parts is None:
        raise ValueError(f"{text!r} is no quantity")
    return float(parts[1] + (parts[2] or "")) * _FACTORS[parts[3] or ""]


def cores(amount: float) -> str:
    """Return processors as a quantity in its canonical form, thousandths rounded up."""
    return f"{amount:.0f}" if amount == int(amount) else f"{math.ceil(1000 * amount - 1e-9)}m"


def mebibytes(nbytes: float) -> str:
    """Return bytes as a quantity in its canonical form, mebibytes rounded up."""
    whole = math.ceil(nbytes / (1 << 20))
    return f"{whole // 1024}Gi" if whole % 1024 == 0 else f"{whole}Mi"


def shown(resource: str, amount: float) -> str:
    """Return an amount as people read it."""
    if "memory" in resource or "storage" in resource:
        return mebibytes(amount)
    return f"{amount:.3g}"
