"""Preemption notices of each cloud, whose metadata service is played."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.metadata_services import played
from kit.waiting import wait_until
from mainspring.core.errors import Invalid
from mainspring.training.preemption.aws import AwsNotices
from mainspring.training.preemption.azure import AzureNotices
from mainspring.training.preemption.conformance import PreemptionNoticesConformance
from mainspring.training.preemption.gcp import GcpNotices
from mainspring.training.preemption.notices import CLOUDS, Notice, detected, notices_of
from mainspring.training.preemption.watching import Watch


class TestAws(PreemptionNoticesConformance):
    @pytest.fixture
    def service(self) -> Iterator[Any]:
        with played("aws") as service:
            yield service

    @pytest.fixture
    def notices(self, service: Any) -> AwsNotices:
        return AwsNotices(service.base, poll_s=0.05)

    def test_a_token_that_expired_is_renewed(self, service: Any, notices: AwsNotices) -> None:
        assert notices.look(0.0) is None
        service.tokens.clear()
        service.announce()
        assert notices.look(0.0) is not None
        assert len(service.tokens) == 1

    def test_a_recommendation_is_a_warning_and_said_once(self, service: Any, notices: AwsNotices) -> None:
        service.recommended = "2026-05-01T12:00:00Z"
        assert notices.look(0.0) == Notice("AWS recommends to leave this machine", None, ends=False)
        assert notices.look(0.0) is None
        service.announce()
        found = notices.look(0.0)
        assert found is not None
        assert found.what.startswith("AWS will terminate this machine at ")


class TestGcp(PreemptionNoticesConformance):
    @pytest.fixture
    def service(self) -> Iterator[Any]:
        with played("gcp") as service:
            yield service

    @pytest.fixture
    def notices(self, service: Any) -> GcpNotices:
        return GcpNotices(service.base)

    def test_a_change_between_two_looks_is_not_missed(self, service: Any, notices: GcpNotices) -> None:
        assert notices.look(0.0) is None
        service.announce()
        assert notices.look(5.0) is not None
        assert "last_etag=a1%2F%2B" in service.asked[-1]


class TestAzure(PreemptionNoticesConformance):
    @pytest.fixture
    def service(self) -> Iterator[Any]:
        with played("azure") as service:
            yield service

    @pytest.fixture
    def notices(self, service: Any) -> AzureNotices:
        return AzureNotices(service.base, poll_s=0.05)

    def test_one_that_has_begun(self, service: Any, notices: AzureNotices) -> None:
        service.events.append(service.event("Preempt", service.machine, begun=True))
        found = notices.look(0.0)
        assert found == Notice("Azure preempts this machine", 0.0)


def test_a_watch_tells_warnings_and_one_end(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Notice] = []
    with played("aws") as service, Watch(AwsNotices(service.base, poll_s=0.05), heard.append):
        service.recommended = "2026-05-01T12:00:00Z"
        wait_until(lambda: len(heard) == 1, "a warning")
        service.announce()
        wait_until(lambda: len(heard) == 2, "a notice")
    assert [each.ends for each in heard] == [False, True]
    assert not caplog.records


def test_a_watch_without_a_service_says_so_once_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Notice] = []
    with played("gcp") as service, Watch(GcpNotices(service.base), heard.append, again_s=0.02):
        service.fail(503)
        wait_until(lambda: bool(caplog.records), "a warning in the log")
        service.fail(0)
        service.announce()
        wait_until(lambda: bool(heard), "a notice")
    assert len(caplog.records) == 1
    assert "A preemption would come as a surprise." in caplog.text
    assert not [each for each in threading.enumerate() if each.name == "preemption" and not each.daemon]


@pytest.mark.parametrize(
    ("vendor", "tag", "cloud"),
    [
        ("Amazon EC2", "", "aws"),
        ("Google", "", "gcp"),
        ("Microsoft Corporation", "7783-7084-3265-9085-8269-3286-77", "azure"),
        ("Microsoft Corporation", "", ""),  # a laptop
        ("QEMU", "", ""),
        (None, "", ""),
    ],
)
def test_the_firmware_names_the_cloud(vendor: str | None, tag: str, cloud: str, tmp_path: Path) -> None:
    if vendor is not None:
        (tmp_path / "sys_vendor").write_text(f"{vendor}\n")
        (tmp_path / "chassis_asset_tag").write_text(f"{tag}\n")
    assert detected(tmp_path) == cloud
    found = notices_of("detect", tmp_path)
    assert (found.name if found is not None else "") == cloud


def test_names_of_clouds() -> None:
    assert notices_of("") is None
    for name in CLOUDS:
        made = notices_of(name)
        assert made is not None
        assert made.name == name
        assert made.least_s >= 30
    with pytest.raises(Invalid, match="no cloud 'oracle'"):
        notices_of("oracle")
