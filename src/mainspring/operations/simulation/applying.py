"""The chosen policy in the project's code: the arguments of one `ms.Endpoint(...)`, all else as it was written."""

from __future__ import annotations

import ast
import difflib
import io
import stat
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mainspring.core.errors import Conflict, Invalid, MainspringError
from mainspring.core.files import write_atomic
from mainspring.core.module_files import sources
from mainspring.serving.simulation_report import Change

_KEYWORD = "executors"
_DEFAULT = (1, 1)
_SCOPES = (
    ast.For, ast.AsyncFor, ast.While, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.If, ast.Try,
    ast.With, ast.AsyncWith, ast.Match, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.IfExp,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Planned:
    """A change that can be written."""

    change: Change
    path: Path
    before: bytes
    after: bytes


def plan_change(
    root: Path, modules: Sequence[str], endpoint: str, declared: tuple[int, int], executors: tuple[int, int]
) -> Planned:
    """Return the change of an endpoint's definition that gives it these executors.

    Args:
        root, modules: Of the project.
        declared: Executors that the endpoint has now.

    Raises:
        Conflict: It cannot be told which text to change, or how; the fix has the line to write by hand.
    """
    by_hand = f"write it by hand: ms.Endpoint({endpoint!r}, ..., {_KEYWORD}={executors})."
    calls = [
        (path, content, call, scope)
        for path, content in sources(root, modules, strict=True).values()
        for call, scope in _calls(ast.parse(content, str(path)), endpoint)
    ]
    if len(calls) != 1:
        how = f"{len(calls)} definitions have" if calls else "no definition has"
        raise Conflict(f"In the project's modules {how} the name {endpoint!r} in their text.", fix=by_hand)
    path, content, call, scope = calls[0]
    file = path.relative_to(root).as_posix()
    where = f"{file}, line {call.lineno}"
    if scope is not None:
        raise Conflict(
            f"The definition of {endpoint!r} is within {_said(scope)} ({where}): it may run otherwise than once.",
            fix=by_hand,
        )
    try:
        text = _Text(content)
        written = text.executors(call)
        if declared != written:
            raise Invalid(f"its text says {_KEYWORD}={written}, which is not what the project has.")
        after = content if written == executors else text.changed(call, executors)
    except MainspringError as error:
        raise Conflict(
            f"The definition of {endpoint!r} cannot be changed ({where}): {error.what}", fix=by_hand
        ) from None
    return Planned(
        Change(file=file, line=call.lineno, diff=_diff(file, content, after)), path.resolve(), content, after
    )


def write_change(planned: Planned) -> Change:
    """Write a change.

    Raises:
        Conflict: The file was changed since.
    """
    path = planned.path
    if path.read_bytes() != planned.before:
        raise Conflict(f"{planned.change.file} was changed meanwhile.", fix="simulate again.")
    if planned.after != planned.before:
        mode = stat.S_IMODE(path.stat().st_mode)
        write_atomic(path, planned.after, mode=mode)
        path.chmod(mode)  # whatever new files of this process may be
    return msgspec.structs.replace(planned.change, written=planned.after != planned.before)


def _calls(tree: ast.Module, endpoint: str) -> Iterator[tuple[ast.Call, ast.AST | None]]:
    """Yield the calls of `Endpoint` that name an endpoint in their text, each with what it is nested in."""
    modules, names = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {each.asname or each.name for each in node.names if each.name == "mainspring"}
        elif isinstance(node, ast.ImportFrom) and node.module == "mainspring":
            names |= {each.asname or each.name for each in node.names if each.name == "Endpoint"}

    def found(node: ast.AST, scope: ast.AST | None) -> Iterator[tuple[ast.Call, ast.AST | None]]:
        if isinstance(node, ast.Call) and _is_endpoint(node.func, modules, names):
            given = (
                node.args[0] if node.args else next((each.value for each in node.keywords if each.arg == "name"), None)
            )
            if isinstance(given, ast.Constant) and given.value == endpoint:
                yield node, scope
        for child in ast.iter_child_nodes(node):
            yield from found(child, scope or (node if isinstance(node, _SCOPES) else None))

    yield from found(tree, None)


def _is_endpoint(function: ast.expr, modules: set[str], names: set[str]) -> bool:
    if isinstance(function, ast.Attribute):
        return function.attr == "Endpoint" and isinstance(function.value, ast.Name) and function.value.id in modules
    return isinstance(function, ast.Name) and function.id in names


def _said(scope: ast.AST) -> str:
    kind = type(scope).__name__.removeprefix("Async")
    words = {"For": "a loop", "While": "a loop", "FunctionDef": "a function", "Lambda": "a function",
             "ClassDef": "a class", "If": "a condition", "IfExp": "a condition", "Match": "a condition"}  # fmt: skip
    return words.get(kind, "a comprehension" if kind.endswith(("Comp", "GeneratorExp")) else "another block")


class _Text:
    """A module's text, changed at places of its syntax tree.

    Raises:
        Invalid: Its encoding is not UTF-8, or its lines end in a way that Python's tokens do not know.
    """

    def __init__(self, content: bytes) -> None:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        if encoding not in {"utf-8", "utf-8-sig"}:
            raise Invalid(f"its encoding is {encoding}.")
        self._mark = content[: 3 if encoding == "utf-8-sig" else 0]
        self._text = content[len(self._mark) :].decode()
        self._ending = "\r\n" if "\r\n" in self._text else "\n"
        if "\r" in self._text.replace("\r\n", ""):
            raise Invalid("its lines end with a carriage return alone.")
        self._starts = [0]
        self._starts += [place + 1 for place, letter in enumerate(self._text) if letter == "\n"]

    def executors(self, call: ast.Call) -> tuple[int, int]:
        """Return the executors that a call's text has.

        Raises:
            Invalid: They are not two numbers in the text, or may come from elsewhere.
        """
        if any(isinstance(each, ast.Starred) for each in call.args) or any(each.arg is None for each in call.keywords):
            raise Invalid("some of its arguments are unpacked from another value (*, **).")
        value = self._value(call)
        return _DEFAULT if value is None else _numbers(value)

    def changed(self, call: ast.Call, executors: tuple[int, int]) -> bytes:
        """Return the text with other executors.

        Raises:
            Invalid: Anything but these would change.
        """
        value = self._value(call)
        text = self._added(call, executors) if value is None else self._text
        if isinstance(value, ast.Tuple | ast.List):
            for each, number in reversed(list(zip(value.elts, executors, strict=True))):
                text = text[: self._start(each)] + str(number) + text[self._end(each) :]
        self._check(call, executors, text)
        return self._mark + text.encode()

    def _value(self, call: ast.Call) -> ast.expr | None:
        return next((each.value for each in call.keywords if each.arg == _KEYWORD), None)

    def _added(self, call: ast.Call, executors: tuple[int, int]) -> str:
        """Return the text with one more argument: on a line of its own where the last one has one."""
        text, close = self._text, self._end(call) - 1
        last = self._last_token(close)
        comma = "" if text[last - 1] == "," else ","
        argument = f"{_KEYWORD}={executors}"
        if "\n" not in text[last:close]:
            more = f" {argument}," if not comma else f"{comma} {argument}"
            return text[:last] + more + text[last:]
        end = text.index("\n", last) - (self._ending == "\r\n")  # behind a comment
        arguments: list[ast.expr | ast.keyword] = [*call.args, *call.keywords]
        before = max(arguments, key=lambda each: (each.lineno, each.col_offset))
        line = text[self._starts[before.lineno - 1] :]
        indent = line[: len(line) - len(line.lstrip(" \t"))]
        return f"{text[:last]}{comma}{text[last:end]}{self._ending}{indent}{argument},{text[end:]}"

    def _last_token(self, close: int) -> int:
        """Return where the last token before a closing bracket ends that is neither a comment nor an end of a line."""
        last = 0
        for token in tokenize.generate_tokens(io.StringIO(self._text, newline="").readline):
            begin = self._starts[token.start[0] - 1] + token.start[1]
            if begin >= close:
                break
            if token.type not in {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE}:
                last = self._starts[token.end[0] - 1] + token.end[1]
        return last

    def _check(self, call: ast.Call, executors: tuple[int, int], text: str) -> None:
        """Raise if a changed text says anything else than before, but for the executors of a call."""
        before, after = ast.parse(self._text), ast.parse(text)
        place = [ast.dump(each) for each in _walked(before)].index(ast.dump(call))
        old, new = _walked(before)[place], _walked(after)[place]
        for each, kept in ((old, None), (new, executors)):
            found = self._value(each)
            if kept is not None and (found is None or _numbers(found) != kept):
                raise Invalid("the change would not be what is wanted.")
            each.keywords = [one for one in each.keywords if one.arg != _KEYWORD]
        if ast.dump(before) != ast.dump(after):
            raise Invalid("more than its executors would change.")

    def _start(self, node: ast.expr) -> int:
        return self._place(node.lineno, node.col_offset)

    def _end(self, node: ast.expr) -> int:
        return self._place(node.end_lineno or node.lineno, node.end_col_offset or 0)

    def _place(self, line: int, column: int) -> int:
        """Return the place of a column, which the syntax tree counts in bytes."""
        start = self._starts[line - 1]
        end = self._starts[line] if line < len(self._starts) else len(self._text)
        return start + len(self._text[start:end].encode()[:column].decode())


def _walked(tree: ast.Module) -> list[ast.Call]:
    return [each for each in ast.walk(tree) if isinstance(each, ast.Call)]


def _numbers(value: ast.expr) -> tuple[int, int]:
    numbers = [
        each.value
        for each in (value.elts if isinstance(value, ast.Tuple | ast.List) else [])
        if isinstance(each, ast.Constant) and type(each.value) is int
    ]
    if not isinstance(value, ast.Tuple | ast.List) or len(value.elts) != 2 or len(numbers) != 2:
        raise Invalid(f"its {_KEYWORD} are not two numbers in the text.")
    return numbers[0], numbers[1]


def _diff(file: str, before: bytes, after: bytes) -> str:
    old, new = (each.decode(errors="replace").splitlines(keepends=True) for each in (before, after))
    return "".join(difflib.unified_diff(old, new, file, file, n=1))
