"""Conformance suite of preemption notices."""

from __future__ import annotations

import threading
import time
from typing import Protocol

import pytest

from mainspring.training.preemption.notices import PreemptionNotices, Unheard


class MetadataService(Protocol):
    """A metadata service that a test plays."""

    def announce(self) -> None:
        """Announce the machine's end."""
        ...

    def fail(self, status: int, body: bytes = b"") -> None:
        """Answer each further request so; status 0: as before."""
        ...

    def stop(self) -> None:
        """Accept no connection any more."""
        ...


class PreemptionNoticesConformance:
    """The fixture `service` is played, and `notices` hears it, looking often."""

    def test_none_at_first_and_then_each_time(self, service: MetadataService, notices: PreemptionNotices) -> None:
        assert notices.look(0.0) is None
        assert notices.look(0.1) is None
        service.announce()
        for _ in range(3):
            found = notices.look(0.0)
            assert found is not None
            assert found.ends
            assert found.within_s is not None
            assert 0 < found.within_s <= notices.least_s

    def test_one_that_was_there_before(self, service: MetadataService, notices: PreemptionNotices) -> None:
        service.announce()
        assert notices.look(0.0) is not None

    def test_one_that_comes_while_it_waits(self, service: MetadataService, notices: PreemptionNotices) -> None:
        assert notices.look(0.0) is None
        threading.Timer(0.2, service.announce).start()
        begun = time.monotonic()
        assert notices.look(20.0) is not None
        assert time.monotonic() - begun < 10

    @pytest.mark.parametrize(
        ("status", "body"),
        [(500, b""), (403, b"no"), (200, b"<html>a portal</html>"), (200, b"[]"), (200, b"\xff\xfe"), (204, b"")],
    )
    def test_another_answer_is_no_notice(
        self, status: int, body: bytes, service: MetadataService, notices: PreemptionNotices
    ) -> None:
        assert notices.look(0.0) is None
        service.fail(status, body)
        with pytest.raises(Unheard, match=notices.name):
            notices.look(0.0)
        service.fail(0)
        assert notices.look(0.0) is None
        service.announce()
        assert notices.look(0.0) is not None

    def test_a_redirection_is_not_followed(self, service: MetadataService, notices: PreemptionNotices) -> None:
        service.fail(302)
        with pytest.raises(Unheard):
            notices.look(0.0)

    def test_no_service(self, service: MetadataService, notices: PreemptionNotices) -> None:
        service.stop()
        with pytest.raises(Unheard, match="does not answer"):
            notices.look(0.0)
