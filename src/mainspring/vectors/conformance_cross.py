"""Conformance suite of cross-encoders.

Derive a test class from it, with the fixtures `encoder`, and `stalling`: one that has no scores for many seconds.
"""

from __future__ import annotations

import math
import threading
import time

import pytest

from mainspring.core.errors import Unavailable
from mainspring.vectors.ports import CrossEncoder

_TEXTS = ["the cat sat on a mat", "dogs ran far away", "the cat", "the mat while dogs sat on a cat", "a"]
_QUERY = "the cat ran"
_LONG_S, _SHORT_S = 60.0, 0.2


class CrossEncoderConformance:
    """Scores of any cross-encoder."""

    def test_each_text_has_a_finite_score_in_its_place(self, encoder: CrossEncoder) -> None:
        scores = encoder.score(_QUERY, _TEXTS, within_s=_LONG_S)
        assert len(scores) == len(_TEXTS)
        assert all(map(math.isfinite, scores))
        assert len(set(scores)) > 1
        assert encoder.score(_QUERY, _TEXTS[::-1], within_s=_LONG_S) == scores[::-1]

    def test_a_score_depends_on_query_and_text_alone(self, encoder: CrossEncoder) -> None:
        scores = encoder.score(_QUERY, _TEXTS, within_s=_LONG_S)
        alone = [encoder.score(_QUERY, [text], within_s=_LONG_S)[0] for text in _TEXTS]
        twice = encoder.score(_QUERY, [*_TEXTS, *_TEXTS], within_s=_LONG_S)
        assert alone == scores
        assert twice == [*scores, *scores]
        assert encoder.score("dogs sat", _TEXTS, within_s=_LONG_S) != scores

    def test_no_text_has_no_score(self, encoder: CrossEncoder) -> None:
        assert encoder.score(_QUERY, [], within_s=_LONG_S) == []

    def test_texts_of_any_length_and_script_are_scored(self, encoder: CrossEncoder) -> None:
        texts = ["the cat " * 5_000, "漢字", "\x00", "😀" * 100, " "]
        assert len(encoder.score(_QUERY, texts, within_s=_LONG_S)) == len(texts)
        assert len(encoder.score("the cat " * 1_000, texts, within_s=_LONG_S)) == len(texts)

    def test_threads_share_it(self, encoder: CrossEncoder) -> None:
        scores = encoder.score(_QUERY, _TEXTS, within_s=_LONG_S)
        found: list[list[float]] = []
        threads = [
            threading.Thread(target=lambda: found.append(encoder.score(_QUERY, _TEXTS, within_s=_LONG_S)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_LONG_S)
        assert found == [scores] * 4

    def test_its_digest_stays(self, encoder: CrossEncoder) -> None:
        first = encoder.digest
        encoder.score(_QUERY, _TEXTS, within_s=_LONG_S)
        assert encoder.digest == first != ""

    def test_one_that_stalls_is_unavailable_within_the_time(self, stalling: CrossEncoder) -> None:
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"0\.2 s"):
            stalling.score(_QUERY, _TEXTS, within_s=_SHORT_S)
        assert time.monotonic() - began < 10 * _SHORT_S
