"""The online store on Redis or Valkey: one hash per view, one round trip per read.

Under `mainspring:{PROJECT}:1:` (1 is the format): `state:VIEW` is a hash of states by entity, `marks` a hash of marks
by view, `views` the set of the names that have either. Atomic operations are scripts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from mainspring.core.errors import MainspringError, StorageFull, Unavailable
from mainspring.core.settings import Url
from mainspring.features.adapters.patience import Patience
from mainspring.features.model import EntityState, Mark

T = TypeVar("T")

_TIMEOUT_S = 1.0
_WRITE_TIMEOUT_S = 30.0
_SHIFT = 1 << 63  # maps signed to unsigned, so that big-endian bytes sort like the numbers
_NEW = struct.Struct(">QQ")  # position, landed
_MARK = struct.Struct(">QQQQ")

# 64-bit numbers are split into halves, because Lua's numbers are doubles.
_NOT_OLDER = """
local function not_older(a, b, halves)
  local format = '>' .. string.rep('I4', halves)
  local x, y = {struct.unpack(format, a)}, {struct.unpack(format, b)}
  for i = 1, halves do
    if x[i] ~= y[i] then return x[i] > y[i] end
  end
  return true
end
"""
# KEYS: states, views. ARGV: the view, then an entity's key and its state in turn, each key once.
_WRITE = (
    _NOT_OLDER
    + """
local fresh = redis.call('EXISTS', KEYS[1]) == 0
for first = 2, #ARGV, 2000 do
  local last = math.min(first + 1999, #ARGV)
  local rows = {}
  if fresh then
    for i = first, last do rows[#rows + 1] = ARGV[i] end
  else
    local keys = {}
    for i = first, last, 2 do keys[#keys + 1] = ARGV[i] end
    local held = redis.call('HMGET', KEYS[1], unpack(keys))
    for i, key in ipairs(keys) do
      local new = ARGV[first + 2 * i - 1]
      if not held[i] or not_older(new, held[i], 4) then
        rows[#rows + 1] = key
        rows[#rows + 1] = new
      end
    end
  end
  if #rows > 0 then redis.call('HSET', KEYS[1], unpack(rows)) end
end
redis.call('SADD', KEYS[2], ARGV[1])
"""
)
# KEYS: marks, views. ARGV: the view, its mark.
_ADVANCE = (
    _NOT_OLDER
    + """
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held or not_older(ARGV[2], held, 8) then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
redis.call('SADD', KEYS[2], ARGV[1])
"""
)
# KEYS: states, marks, views. ARGV: the view.
_CLEAR = """
redis.call('UNLINK', KEYS[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
"""
# KEYS: states, the other's states, marks, views. ARGV: the view, the other.
_SWAP = """
redis.call('UNLINK', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[1]) end
local mark = redis.call('HGET', KEYS[3], ARGV[2])
if mark then redis.call('HSET', KEYS[3], ARGV[1], mark) else redis.call('HDEL', KEYS[3], ARGV[1]) end
redis.call('HDEL', KEYS[3], ARGV[2])
if redis.call('SREM', KEYS[4], ARGV[2]) == 1 then
  redis.call('SADD', KEYS[4], ARGV[1])
else
  redis.call('SREM', KEYS[4], ARGV[1])
end
"""
_COPIED_AT_ONCE = 1_000
_DENIED = (redis.AuthenticationError, redis.exceptions.NoPermissionError)


class RedisOnlineStore:
    """States in one database of a server.

    Args:
        url: `redis://` or `rediss://` (TLS), or the same as `valkey`, with user, password, host, port, database.
        project: Separates the states of several projects on one server.
        patience: Replaces the default retry policy.
    """

    remote = True
    longest_key: int | None = None

    def __init__(self, url: Url, project: str, *, patience: Patience | None = None) -> None:
        self._patience = patience or Patience(f"The online store {url.shown}", _passing)
        self._name = url.shown
        text = url.text.replace("valkey", "redis", 1)
        self._reading = _client(text, _TIMEOUT_S)
        self._writing = _client(text, _WRITE_TIMEOUT_S)
        root = f"mainspring:{{{project}}}:1:"
        self._states_root = f"{root}state:"
        self._marks, self._views = f"{root}marks", f"{root}views"
        self._write, self._advance, self._clear, self._swap = (
            self._writing.register_script(script) for script in (_WRITE, _ADVANCE, _CLEAR, _SWAP)
        )

    def write(self, view: str, rows: Sequence[tuple[bytes, EntityState]]) -> None:
        newest: dict[bytes, EntityState] = {}
        for key, state in rows:
            held = newest.get(key)
            if held is None or (state.position, state.landed) >= (held.position, held.landed):
                newest[key] = state
        if not newest:
            return
        arguments: list[bytes | str] = [view]
        for key, state in newest.items():
            arguments += (key, _NEW.pack(state.position + _SHIFT, state.landed + _SHIFT) + state.payload)
        keys = [self._states(view), self._views]
        self._asked(self._patience.write, lambda: self._write(keys, arguments))

    def read(self, wanted: Sequence[tuple[str, bytes]]) -> list[EntityState | None]:
        return [None if value is None else _state(value) for value in self._values(wanted)]

    def payloads(self, wanted: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        start = _NEW.size
        return [None if value is None else value[start:] for value in self._values(wanted)]

    def mark(self, view: str) -> Mark | None:
        held: Any = self._asked(self._patience.read, lambda: self._reading.hget(self._marks, view))
        return None if held is None else Mark(*(number - _SHIFT for number in _MARK.unpack(held)))

    def position(self, view: str) -> int | None:
        mark = self.mark(view)
        return None if mark is None else mark.position

    def advance(self, view: str, mark: Mark) -> None:
        packed = _MARK.pack(*(number + _SHIFT for number in (mark.position, mark.landed, mark.newest, mark.until)))
        keys = [self._marks, self._views]
        self._asked(self._patience.write, lambda: self._advance(keys, [view, packed]))

    def clear(self, view: str) -> None:
        keys = [self._states(view), self._marks, self._views]
        self._asked(self._patience.write, lambda: self._clear(keys, [view]))

    def delete(self, names: Sequence[tuple[str, bytes]]) -> int:
        def attempt() -> int:
            pipeline = self._writing.pipeline(transaction=False)
            for view, key in names:
                pipeline.execute_command("HDEL", self._states(view), key)
            return sum(pipeline.execute())

        return self._asked(self._patience.write, attempt) if names else 0

    def swap(self, view: str, by: str) -> None:
        keys = [self._states(view), self._states(by), self._marks, self._views]
        self._asked(self._patience.write, self._writing.ping)
        self._asked(self._patience.once, lambda: self._swap(keys, [view, by]))

    def views(self) -> list[str]:
        names: Any = self._asked(self._patience.read, lambda: self._reading.smembers(self._views))
        return sorted(name.decode() for name in names)

    def entities(self, view: str) -> Iterator[list[tuple[bytes, EntityState]]]:
        cursor: int = 0
        while True:
            scan: Any = partial(self._reading.hscan, self._states(view), cursor, count=_COPIED_AT_ONCE)
            cursor, found = self._asked(self._patience.read, scan)
            yield [(key, _state(value)) for key, value in found.items()]
            if cursor == 0:
                return

    def ping(self) -> None:
        self._asked(self._patience.read, self._reading.ping)

    def info(self) -> dict[str, Any] | None:
        """Return the server's INFO, `None` if the user may not read it."""
        try:
            said: Any = self._asked(self._patience.read, self._reading.info)
        except Unavailable as error:
            if isinstance(error.__cause__, _DENIED):
                return None
            raise
        return dict(said)

    def close(self) -> None:
        self._reading.close()
        self._writing.close()

    def _states(self, view: str) -> str:
        return self._states_root + view

    def _values(self, wanted: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        if not wanted:
            return []
        places: dict[str, list[int]] = {}
        for place, (view, _) in enumerate(wanted):
            places.setdefault(view, []).append(place)
        if len(places) == 1:
            (view,) = places
            command = ("HMGET", self._states(view), *(key for _, key in wanted))
            values: list[bytes | None] = self._asked(
                self._patience.read, lambda: self._reading.execute_command(*command)
            )
            return values
        values = [None] * len(wanted)
        answers = self._asked(self._patience.read, lambda: self._several(wanted, places))
        for answer, positions in zip(answers, places.values(), strict=True):
            for place, value in zip(positions, answer, strict=True):
                values[place] = value
        return values

    def _several(self, wanted: Sequence[tuple[str, bytes]], places: dict[str, list[int]]) -> list[Any]:
        pipeline = self._reading.pipeline(transaction=False)
        for view, at in places.items():
            pipeline.execute_command("HMGET", self._states(view), *(wanted[place][1] for place in at))
        answers: list[Any] = pipeline.execute()
        return answers

    def _asked(self, patience: Callable[[Callable[[], T]], T], attempt: Callable[[], T]) -> T:
        try:
            return patience(attempt)
        except redis.RedisError as error:
            raise self._translated(error) from error

    def _translated(self, error: redis.RedisError) -> MainspringError:
        if isinstance(error, redis.OutOfMemoryError) or str(error).startswith("MISCONF"):
            return StorageFull(
                f"No space left in the online store {self._name}: {error}.",
                fix="give the server more memory or disk, and run the command again.",
            )
        fix = "correct the user or the password in the setting `online`." if isinstance(error, _DENIED) else None
        return Unavailable(f"The online store {self._name} rejected the command: {error}.", fix=fix)


def _state(value: bytes) -> EntityState:
    position, landed = _NEW.unpack_from(value)
    return EntityState(position - _SHIFT, value[_NEW.size :], landed - _SHIFT)


def _passing(error: Exception) -> bool:
    """Return whether an error is transient: the server is away, starts, runs a script, or has become a replica."""
    if isinstance(error, (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError)):
        return not isinstance(error, _DENIED)
    return isinstance(error, redis.ResponseError) and str(error).startswith(("BUSY", "LOADING", "TRYAGAIN"))


def _client(url: str, timeout_s: float) -> redis.Redis:
    client = redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=_TIMEOUT_S,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),  # `Patience` retries, with a budget
    )
    client.connection_pool.connection_kwargs["decode_responses"] = False  # states are bytes, whatever the URL says
    return client
