"""Conformance suite of online stores. Derive a test class from `OnlineStoreConformance`, with a fixture `store`."""

from __future__ import annotations

import threading
from typing import Any

from mainspring.features.model import EntityState, Mark
from mainspring.features.ports import OnlineStore

_A, _B, _C = b"\x91\xa1a", b"\x91\xa1b", b"\x92\x00\xff"
_LEAST, _LARGEST = -(2**63), 2**63 - 1
_HOSTILE = (
    b"",
    b"\0",
    b"\0\0",
    b"a\0b",
    b"\xff" * 4,
    b"'; DROP TABLE entity; --",
    *(letter * length for letter in (b"a", b"\0") for length in (479, 480, 481, 511, 512, 999, 1000, 1024, 1025, 5000)),
    b"a" * 1000 + b"b",
    b"b" + b"a" * 1000,
)


class OnlineStoreConformance:
    def test_reads_in_the_order_asked(self, store: OnlineStore) -> None:
        store.write("v", [(_A, EntityState(1, b"a")), (_B, EntityState(1, b"b"))])
        store.write("w", [(_A, EntityState(1, b"other"))])
        found = store.read([("v", _B), ("v", _C), ("w", _A), ("v", _A), ("v", _B), ("nobody", _A)])
        assert [state and state.payload for state in found] == [b"b", None, b"other", b"a", b"b", None]

    def test_gives_the_payloads_alone(self, store: OnlineStore) -> None:
        store.write("v", [(_A, EntityState(1, b"a")), (_B, EntityState(1, b""))])
        store.write("w", [(_A, EntityState(1, b"other"))])
        asked = [("v", _B), ("w", _C), ("w", _A), ("v", _A), ("nobody", _A), ("v", _C)]
        assert store.payloads(asked) == [b"", None, b"other", b"a", None, None]
        for count in range(1, 40):
            assert store.payloads([("v", _C)] * (count - 1) + [("v", _A)]) == [None] * (count - 1) + [b"a"]
        assert all(type(payload) is bytes for payload in store.payloads([("v", _A), ("v", _B)]))

    def test_reads_nothing_when_asked_for_nothing(self, store: OnlineStore) -> None:
        assert store.read([]) == []
        assert store.payloads([]) == []

    def test_gives_back_what_was_written(self, store: OnlineStore) -> None:
        state = EntityState(-(2**62), bytes(range(256)) * 40, 2**40)
        store.write("v", [(_C, state)])
        assert store.read([("v", _C)]) == [state]

    def test_an_older_state_loses(self, store: OnlineStore) -> None:
        store.write("v", [(_A, EntityState(5, b"new", 7))])
        store.write("v", [(_A, EntityState(4, b"earlier", 9)), (_B, EntityState(1, b"b"))])
        store.write("v", [(_A, EntityState(5, b"saw fewer rows", 6))])
        assert store.read([("v", _A), ("v", _B)]) == [EntityState(5, b"new", 7), EntityState(1, b"b")]

    def test_an_equal_state_replaces(self, store: OnlineStore) -> None:
        store.write("v", [(_A, EntityState(5, b"one", 7))])
        store.write("v", [(_A, EntityState(5, b"two", 7))])
        assert store.read([("v", _A)]) == [EntityState(5, b"two", 7)]

    def test_a_key_twice_in_one_write_keeps_the_newest(self, store: OnlineStore) -> None:
        store.write("v", [(_A, EntityState(5, b"new")), (_A, EntityState(3, b"old"))])
        assert store.read([("v", _A)]) == [EntityState(5, b"new")]

    def test_any_bytes_are_a_key(self, store: OnlineStore) -> None:
        store.write("v", [(key, EntityState(1, str(place).encode())) for place, key in enumerate(_HOSTILE)])
        store.write("w", [(b"", EntityState(1, b"another view's"))])
        found = store.read([("v", key) for key in _HOSTILE])
        assert [state and int(state.payload) for state in found] == list(range(len(_HOSTILE)))

    def test_where_a_views_name_ends_and_a_key_begins_is_never_in_doubt(self, store: OnlineStore) -> None:
        store.write("v", [(b"1a", EntityState(1, b"v"))])
        store.write("v1", [(b"b", EntityState(1, b"v1"))])
        found = store.read([("v1", b"a"), ("v", b"1b"), ("v", b"1a"), ("v1", b"b")])
        assert [state and state.payload for state in found] == [None, None, b"v", b"v1"]

    def test_payloads_are_any_bytes_of_any_length(self, store: OnlineStore) -> None:
        payloads = [b"", b"\0", bytes(range(256)) * 4096, b"\xff" * 1_000_000]
        keys = [number.to_bytes(1, "big") for number in range(len(payloads))]
        store.write("v", [(key, EntityState(1, payload)) for key, payload in zip(keys, payloads, strict=True)])
        assert [state and state.payload for state in store.read([("v", key) for key in keys])] == payloads

    def test_instants_are_compared_exactly(self, store: OnlineStore) -> None:
        # Neighbours that are equal as doubles, and both ends of 64 bits.
        steps = [(_LEAST, _LEAST), (_LEAST, 0), (-1, 3), (0, -1), (2**62, 2**62), (2**62, 2**62 + 1), (2**62 + 1, 0)]
        steps += [(_LARGEST, 0), (_LARGEST, _LARGEST)]
        for place, (position, landed) in enumerate(steps):
            state = EntityState(position, bytes([place]), landed)
            store.write("v", [(_A, state)])
            assert store.read([("v", _A)]) == [state]
            for earlier, seen in steps[:place]:
                store.write("v", [(_A, EntityState(earlier, b"older", seen))])
            assert store.read([("v", _A)]) == [state]
        marks = [Mark(*step, 0, 0) for step in steps] + [Mark(_LARGEST, _LARGEST, _LARGEST, _LARGEST)]
        for place, mark in enumerate(marks):
            store.advance("v", mark)
            for earlier_mark in marks[:place]:
                store.advance("v", earlier_mark)
            assert store.mark("v") == mark

    def test_reads_many_views_at_once(self, store: OnlineStore) -> None:
        views = [f"v{number}" for number in range(100)]
        for view in views[::2]:
            store.write(view, [(_A, EntityState(1, view.encode()))])
        found = store.read([(view, key) for key in (_A, _B) for view in views])
        wanted = [view.encode() if place % 2 == 0 else None for place, view in enumerate(views)]
        assert [state and state.payload for state in found] == wanted + [None] * 100

    def test_writing_nothing_makes_nothing(self, store: OnlineStore) -> None:
        store.write("v", [])
        store.clear("w")
        assert store.views() == []

    def test_answers(self, store: OnlineStore) -> None:
        store.ping()

    def test_reads_many_keys_at_once(self, store: OnlineStore) -> None:
        keys = [number.to_bytes(4, "big") for number in range(25_000)]
        store.write("v", [(key, EntityState(1, key)) for key in keys])
        found = store.read([("v", key) for key in reversed(keys)])
        assert [state and state.payload for state in found] == keys[::-1]

    def test_gives_every_state_of_a_view(self, store: OnlineStore) -> None:
        held = {number.to_bytes(2, "big"): EntityState(number, b"p%d" % number, -number) for number in range(2_500)}
        held |= {key: EntityState(_LARGEST, key, _LEAST) for key in _HOSTILE if len(key) <= (store.longest_key or 5000)}
        store.write("v", list(held.items()))
        store.write("w", [(_A, EntityState(1, b"another view's"))])
        found = [pair for piece in store.entities("v") for pair in piece]
        assert dict(found) == held
        assert len(found) == len(held)
        assert [pair for piece in store.entities("u") for pair in piece] == []

    def test_a_key_that_was_shortened_shows_it(self, store: OnlineStore) -> None:
        long = b"k" * 5_000
        store.write("v", [(long, EntityState(1, b"long"))])
        ((key, state),) = [pair for piece in store.entities("v") for pair in piece]
        assert state == EntityState(1, b"long")
        assert key == long if store.longest_key is None else len(key) > store.longest_key

    def test_a_mark_never_goes_back(self, store: OnlineStore) -> None:
        assert store.mark("v") is None
        assert store.position("v") is None
        first, second = Mark(5, 10, 99, 6), Mark(5, 11, 100, 6)
        store.advance("v", second)
        store.advance("v", first)
        store.advance("v", Mark(4, 50, 200, 9))
        assert store.mark("v") == second
        assert store.position("v") == 5
        assert store.mark("w") is None

    def test_clearing_forgets_one_view(self, store: OnlineStore) -> None:
        for view in ("v", "w"):
            store.write(view, [(_A, EntityState(5, b"a"))])
            store.advance(view, Mark(5))
        store.clear("v")
        assert store.read([("v", _A), ("w", _A)]) == [None, EntityState(5, b"a")]
        assert (store.mark("v"), store.mark("w")) == (None, Mark(5))
        store.write("v", [(_A, EntityState(1, b"again"))])
        assert store.read([("v", _A)]) == [EntityState(1, b"again")]

    def test_deleted_states_are_gone_and_the_others_stay(self, store: OnlineStore) -> None:
        keys = [*_HOSTILE, b"%", b"_", b"*", b"?", b"[a-z]"]
        for view in ("v", "w"):
            store.write(view, [(key, EntityState(5, b"x")) for key in keys])
            store.advance(view, Mark(5))
        gone = [
            ("v", keys[5]),
            ("v", b"a" * 5_000),
            ("v", b"%"),
            ("w", b"*"),
            ("nobody", _A),
            ("v", b"never"),
            ("v", _C),
        ]
        assert store.delete(gone) == 4
        found = store.read([(view, key) for view in ("v", "w") for key in keys])
        there = [(view, key) for view in ("v", "w") for key in keys if (view, key) not in gone]
        assert sum(state is not None for state in found) == len(there)
        assert all(state is not None for state in store.read(there))
        assert (store.delete(gone), store.delete([])) == (0, 0)
        assert (store.mark("v"), store.mark("w")) == (Mark(5), Mark(5))
        store.write("v", [(b"%", EntityState(1, b"again"))])
        assert store.read([("v", b"%")]) == [EntityState(1, b"again")]

    def test_swapping_puts_one_view_in_the_place_of_another(self, store: OnlineStore) -> None:
        store.write("v", [(_A, EntityState(9, b"old")), (_B, EntityState(9, b"gone"))])
        store.advance("v", Mark(9, 2, 1, 9))
        store.write("v~", [(_A, EntityState(5, b"new")), (_C, EntityState(5, b"came"))])
        store.advance("v~", Mark(5, 1, 0, 6))
        store.write("w", [(_A, EntityState(1, b"other"))])
        store.swap("v", "v~")
        asked = [("v", _A), ("v", _B), ("v", _C), ("v~", _A), ("v~", _C), ("w", _A)]
        payloads = [state and state.payload for state in store.read(asked)]
        assert payloads == [b"new", None, b"came", None, None, b"other"]
        assert (store.mark("v"), store.position("v"), store.mark("v~")) == (Mark(5, 1, 0, 6), 5, None)
        assert store.views() == ["v", "w"]
        store.write("v", [(_A, EntityState(6, b"newer"))])
        store.write("v~", [(_A, EntityState(1, b"once more"))])
        store.advance("v", Mark(6, 1, 0, 6))
        assert [state and state.payload for state in store.read(asked[:4])] == [b"newer", None, b"came", b"once more"]
        assert (store.mark("v"), store.mark("v~")) == (Mark(6, 1, 0, 6), None)

    def test_swapping_nothing_leaves_nothing(self, store: OnlineStore) -> None:
        store.write("v", [(_A, EntityState(9, b"old"))])
        store.advance("v", Mark(9))
        store.swap("v", "v~")
        assert store.read([("v", _A)]) == [None]
        assert store.mark("v") is None
        store.swap("v", "v~")
        store.write("v", [(_A, EntityState(1, b"again"))])
        assert store.read([("v", _A)]) == [EntityState(1, b"again")]

    def test_names_every_view_that_has_something(self, store: OnlineStore) -> None:
        assert store.views() == []
        store.write("w", [(_A, EntityState(1, b"a"))])
        store.write("v", [(_A, EntityState(1, b"a"))])
        store.advance("u", Mark(1))
        assert store.views() == ["u", "v", "w"]
        store.clear("w")
        assert store.views() == ["u", "v"]

    def test_a_reader_sees_a_swap_whole_or_not_at_all(self, store: OnlineStore) -> None:
        keys = [number.to_bytes(2, "big") for number in range(500)]
        wanted = [("v", key) for key in keys]
        store.write("v", [(key, EntityState(0, b"0")) for key in keys])
        seen: list[Any] = []
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                seen.append({state and state.position for state in store.read(wanted)})

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for position in range(1, 15):
                for start in range(0, 500, 100):
                    store.write("v~", [(key, EntityState(position, b"x")) for key in keys[start : start + 100]])
                store.swap("v", "v~")
        finally:
            done.set()
            reader.join()
        assert seen
        assert all(len(positions) == 1 and None not in positions for positions in seen)

    def test_a_reader_sees_a_write_whole_or_not_at_all(self, store: OnlineStore) -> None:
        keys = [("v", number.to_bytes(2, "big")) for number in range(500)]
        store.write("v", [(key, EntityState(0, b"0")) for _, key in keys])
        seen: list[Any] = []
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                seen.append({state and state.position for state in store.read(keys)})

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for position in range(1, 30):
                store.write("v", [(key, EntityState(position, b"x")) for _, key in keys])
        finally:
            done.set()
            reader.join()
        assert seen
        assert all(len(positions) == 1 for positions in seen)

    def test_a_store_that_was_closed_is_opened_by_the_next_call(self, store: OnlineStore) -> None:
        store.write("v", [(b"a", EntityState(1, b"x"))])
        for _ in range(2):
            store.close()
            assert store.payloads([("v", b"a")]) == [b"x"]
        store.close()
        store.write("v", [(b"a", EntityState(2, b"y"))])
        assert store.payloads([("v", b"a")]) == [b"y"]
