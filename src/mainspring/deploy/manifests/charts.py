"""A chart of Helm from objects: they are its templates, in which some values are read from `values.yaml`.

With the chart's own values Helm renders the objects as they are; syntax: https://helm.sh/docs/chart_template_guide/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_WORDS = {"on", "off", "yes", "no", "y", "n", "true", "false", "null"}  # which YAML 1.1 takes for other things


@dataclass(frozen=True, slots=True)
class Value:
    """A value that Helm computes: `.Values.image`."""

    expression: str


@dataclass(frozen=True, slots=True)
class When:
    """A value, field or member that is there on a condition."""

    condition: str
    value: Any


def as_template(value: Any, texts: Mapping[str, str]) -> str:
    """Return the text of a template.

    Args:
        texts: Expression by the text in place of which it stands, also where that is a part of another.
    """
    lines = [f"{{{{- if {value.condition} }}}}"] if isinstance(value, When) else []
    lines += _block(value.value if isinstance(value, When) else value, "", texts)
    lines += ["{{- end }}"] if isinstance(value, When) else []
    return "\n".join(lines) + "\n"


def _block(value: Any, indent: str, texts: Mapping[str, str]) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            key = name if _PLAIN.fullmatch(name) and name.lower() not in _WORDS else json.dumps(name)
            yield from _entry(f"{indent}{key}:", each, indent, texts)
        return
    for each in value:
        yield from _member(each, indent, texts)


def _entry(head: str, value: Any, indent: str, texts: Mapping[str, str]) -> Iterator[str]:
    if isinstance(value, When):
        yield f"{indent}{{{{- if {value.condition} }}}}"
        yield from _entry(head, value.value, indent, texts)
        yield f"{indent}{{{{- end }}}}"
    elif isinstance(value, dict | list) and value:
        yield head
        yield from _block(value, indent + "  ", texts)
    else:
        yield f"{head} {_scalar(value, texts)}"


def _member(value: Any, indent: str, texts: Mapping[str, str]) -> Iterator[str]:
    if isinstance(value, When):
        yield f"{indent}{{{{- if {value.condition} }}}}"
        yield from _member(value.value, indent, texts)
        yield f"{indent}{{{{- end }}}}"
    elif isinstance(value, dict | list) and value:
        yield f"{indent}-"
        yield from _block(value, indent + "  ", texts)
    else:
        yield f"{indent}- {_scalar(value, texts)}"


def _scalar(value: Any, texts: Mapping[str, str]) -> str:
    if isinstance(value, Value):
        return f"{{{{ {value.expression} }}}}"
    if not isinstance(value, str):
        return json.dumps(value)
    text = json.dumps(value, ensure_ascii=False)
    found = [each for each in texts if each in value]
    if "{{" in value:  # Prometheus has the same syntax: the text is an argument, not a template
        for each in found:
            text = f"{text} | replace {json.dumps(each)} ({texts[each]})"
        return f"{{{{ {text} | toJson }}}}"
    for each in found:
        text = text.replace(each, f"{{{{ {texts[each]} }}}}")
    return text
