"""References to functions of a project that serve as models. A bundle holds the name and a digest of the source, no
code.
"""

from __future__ import annotations

import re

from mainspring.core.errors import Corrupt
from mainspring.registry.model import Code

FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_code(code: Code, owner: str = "") -> None:
    """Raise if `code` is not a function written as `module:function` with a SHA-256 of its source.

    Raises:
        Corrupt: The name or the digest is malformed.
    """
    if not FUNCTION.fullmatch(code.function):
        raise Corrupt(f"The function {code.function[:80]!r}{owner} is not written module:function.")
    if not _DIGEST.fullmatch(code.source):
        raise Corrupt(f"The function {code.function[:80]!r}{owner} has no SHA-256 of its source.")
