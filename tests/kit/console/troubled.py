"""A project whose weather went missing for two days: incidents of several channels, one of them closed."""

from dataclasses import dataclass

from msgspec.structs import replace

from kit.console.flights import NOW, Project, populated, windows
from mainspring.core.time import DAY, WEEK
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.model import Window
from mainspring.monitoring.signals import CONTRACT, HARM, SURPRISE, Signal
from mainspring.operations.incidents import judge, own
from mainspring.operations.watching import settle

ENDPOINT = "late-arrival"
WEATHER = ("Weather.wind", "Weather.visibility", "Weather.pressure", "Weather.humidity")


@dataclass(frozen=True)
class Troubled:
    """The project, and the ids of three of its incidents."""

    project: Project
    weather: str
    quality: str
    closed: str


def troubled(project: Project | None = None) -> Troubled:
    project = project or populated()
    start, end = NOW // WEEK * WEEK - WEEK, NOW // WEEK * WEEK
    null = [
        Signal(
            channel=CONTRACT,
            endpoint=ENDPOINT,
            statistic="nulls",
            column=column,
            start=start,
            end=end,
            severity=9.0 - place,
            value=0.41,
            expected=0.002,
            page=True,
            detail=f"{column} is null in 41 % of 6,204 rows; training had 0.2 %.",
        )
        for place, column in enumerate(WEATHER)
    ]
    brier = Signal(
        channel=HARM,
        endpoint=ENDPOINT,
        statistic="brier",
        start=start,
        end=end,
        severity=1.4,
        value=0.21,
        expected=0.18,
        page=True,
        version="2",
        detail="The Brier score of version 2 is 0.21, and 0.18 was held out; 0.02 more is tolerated. <b>",
    )
    month = Signal(
        channel=SURPRISE,
        endpoint=ENDPOINT,
        statistic="shape",
        column="Schedule.month",
        start=start - DAY,
        end=end - DAY,
        severity=1.1,
        value=0.3,
        expected=0.1,
        detail="Schedule.month moved more than in any week before.",
    )
    project.monitors.save([_missing(window, share) for window, share in zip(windows()[-2:], (0.18, 0.41), strict=True)])
    judged = [
        Judged(ENDPOINT, channel, ((start - DAY, end - DAY), (start, end)), tuple(found))
        for channel, found in ((CONTRACT, null), (HARM, [brier]), (SURPRISE, [month]))
    ]
    ids = {}
    for change in settle(project, judged, NOW):
        ids[change.incident.channels[0]] = change.incident.id
    own(project, ids[CONTRACT], "ana", by="local:ana")
    judge(project, ids[SURPRISE], "expected", reason="September began", by="local:ben")
    return Troubled(project, ids[CONTRACT], ids[HARM], ids[SURPRISE])


def _missing(window: Window, share: float) -> Window:
    """Return a window in which the weather is null in a share of the rows."""
    columns = [replace(each, null_share=share) if each.column in WEATHER else each for each in window.columns]
    return replace(window, columns=tuple(columns))
