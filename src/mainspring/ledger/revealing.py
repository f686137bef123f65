"""Sealed values back in their places."""

from __future__ import annotations

import msgspec

from mainspring.ledger.model import Prediction
from mainspring.ledger.sealing import Opener


def revealed(prediction: Prediction, opener: Opener) -> Prediction:
    """Return the prediction with its sealed values shown; values that were left out stay so.

    Raises:
        Corrupt: They were sealed by another installation's key.
    """
    if not prediction.sealed:
        return prediction
    values = opener.open(prediction.id, prediction.sealed)
    return msgspec.structs.replace(
        prediction,
        keys=prediction.keys | values["keys"],
        request=prediction.request | values["request"],
        features=prediction.features | values["features"],
        personal=(),
        sealed=b"",
    )
