"""The root of all errors, and the few kinds that an edge must distinguish.

A message names the values that are wrong; the fix is a command where one exists. A kind says what a caller can do
about an error; how each edge reports it is in one table, `core.error_codes`.
"""

from __future__ import annotations

from collections.abc import Iterator


class MainspringError(Exception):
    """Something went wrong that a person can act on.

    Args:
        what: One sentence that names the values.
        fix: The remedy, a command where one exists.
        retryable: Whether the same call may succeed later, unchanged.
    """

    def __init__(self, what: str, *, fix: str | None = None, retryable: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.what} Fix: {self.fix}" if self.fix else self.what


class Invalid(MainspringError):
    """An argument, a request or a setting is wrong; the same call will always fail."""


class InvalidDefinition(Invalid):
    """A project's definitions do not hold together. `problems` has one line each: file, line, what, fix."""

    def __init__(self, problems: list[str]) -> None:
        count = len(problems)
        super().__init__(f"The project has {count} {'problem' if count == 1 else 'problems'}:\n" + "\n".join(problems))
        self.problems = problems


class InvalidData(Invalid):
    """Data does not match its declaration."""


class NotFound(MainspringError):
    """The requested name or id does not exist."""


class Conflict(MainspringError):
    """The needed resource is held by another: a lock, a port, a name."""


class Corrupt(MainspringError):
    """Stored state is damaged or was tampered with; it was not used."""


class StorageFull(MainspringError):
    """A disk or quota is full; nothing of the interrupted write remains."""


class LimitReached(MainspringError):
    """Work may not begin now, as what was allowed for it is used up, such as a budget."""


class Denied(MainspringError):
    """The caller is not who they must be (`authenticated` is False) or may not do this (it is True)."""

    def __init__(self, what: str, *, authenticated: bool = False, fix: str | None = None) -> None:
        super().__init__(what, fix=fix)
        self.authenticated = authenticated


class NotConvertible(MainspringError):
    """A model cannot become a bundle whose predictions match the estimator's."""


class Unavailable(MainspringError):
    """A backend did not answer; retrying may help."""

    def __init__(self, what: str, *, fix: str | None = None) -> None:
        super().__init__(what, fix=fix, retryable=True)


class NotReady(Unavailable):
    """A known model, collection or chain cannot answer yet, or no more as the server stops. The message names nothing
    inside: callers get it."""


class Overloaded(MainspringError):
    """No capacity for the request now. `retry_after_ms` is the time until a retry makes sense."""

    def __init__(self, what: str, *, retry_after_ms: int) -> None:
        super().__init__(what, retryable=True)
        self.retry_after_ms = retry_after_ms


class DeadlineExceeded(MainspringError):
    """The response would have been too late. `retry_after_ms` is the time until a retry may succeed, if known."""

    def __init__(self, what: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(what, retryable=True)
        self.retry_after_ms = retry_after_ms


class MissingExtra(MainspringError):
    """An optional dependency is needed and not installed."""

    def __init__(self, needed_for: str, extra: str) -> None:
        super().__init__(
            f"{needed_for} needs the extra {extra!r}, which is not installed.",
            fix=f"pip install 'mainspring[{extra}]'",
        )


# Requests that an edge rejects before it reads their content


class TooLarge(Invalid):
    """A request's body is over the limit."""


class TooSlow(MainspringError):
    """A request's body did not arrive in time."""


class Shed(Overloaded):
    """The request was refused on purpose: the endpoint sheds a share of its load for a while."""


class QuotaExceeded(Overloaded):
    """A quota of the caller is spent. `fields` are header fields that say so."""

    def __init__(self, what: str, *, retry_after_ms: int, fields: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(what, retry_after_ms=retry_after_ms)
        self.fields = fields


class NoRoom(Overloaded):
    """The bodies that are arriving use all the memory allowed for them."""


class WrongMethod(Invalid):
    """The path exists, not for this method."""


class WrongEncoding(Invalid):
    """The body is encoded in a way this server does not read."""


class WrongHost(Denied):
    """A request for a host name that is not this server's, or from a page of another origin."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it came from, the newest first.

    Each is yielded once: `raise error from error` makes a chain without an end.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__context__ if error.__cause__ in (None, error) else error.__cause__
