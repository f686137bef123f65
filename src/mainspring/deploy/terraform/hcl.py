"""HCL: attributes, lists and comments as `terraform fmt` writes them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

_REFERENCE = re.compile(r"\$\{([^{}]+)\}")
_WIDTH = 110


def attributes(fields: Mapping[str, str], indent: int) -> Iterator[str]:
    """Yield lines as `terraform fmt` aligns them: neighbours of one line each are of one width."""
    for long, group in itertools.groupby(fields.items(), lambda field: "\n" in field[1]):
        lines = list(group)
        width = 0 if long else max(len(name) for name, _ in lines)
        for name, text in lines:
            yield f"{' ' * indent}{name:{width}} = {text}"


def values(texts: Sequence[str], indent: int = 4) -> str:
    """Return a list in HCL of templates; one that is a `for` gives several values."""
    single = [_value(each) for each in texts if not each.startswith("[for ")]
    several = [each for each in texts if each.startswith("[for ")]
    line = f"[{', '.join(single)}]"
    if len(line) + indent > _WIDTH:
        inner = "".join(f"{' ' * (indent + 2)}{each},\n" for each in single)
        line = f"[\n{inner}{' ' * indent}]"
    return f"concat({', '.join([line, *several])})" if several else line


def _value(text: str) -> str:
    whole = _REFERENCE.fullmatch(text)
    return whole[1] if whole else f'"{text}"'


def comment(text: str, indent: int = 2) -> Iterator[str]:
    """Yield lines of a comment."""
    line = begun = f"{' ' * indent}#"
    for word in text.split():
        if len(line) + len(word) > _WIDTH:
            yield line
            line = begun
        line += f" {word}"
    yield line
