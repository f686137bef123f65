"""Standard output while it is to have one document: whatever else is written there goes to standard error."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def apart() -> TextIO:
    """Return what standard output is, and from now on lead all who write there to standard error.

    That is by descriptor: a `print` of a training function, a library in C and child processes alike.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
    except OSError:  # there is no standard error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
    return os.fdopen(kept, "w", encoding="utf-8")
