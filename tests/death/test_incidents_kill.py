"""kill -9 of the monitor between opening an incident, storing its message, sending it and noting that it was sent; and
between deciding to shed requests, publishing that, and ending it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from kit import prefork

VICTIM = Path(__file__).parent / "incidents_victim.py"


def test_an_incident_opens_once_and_its_messages_arrive_wherever_the_worker_is_killed(tmp_path: Path) -> None:
    command = prefork.script(VICTIM, tmp_path)
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, timeout=400)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, told[-1:]
    opened = [each for each in told if each["incidents"] == [{"open": True, "windows": 1}]]
    ended = [each for each in told if each["incidents"] == [{"open": False, "windows": 1}]]
    assert len(opened) + len(ended) == len(told)
    assert [sum(each["killed"] for each in part) > 6 for part in (opened, ended)] == [True, True]
    assert [[each["killed"] for each in part][-1] for part in (opened, ended)] == [False, False]
    assert all(each["messages"] == [["opened", "sent"]] for each in opened)
    assert all(each["messages"] == [["closed", "sent"], ["opened", "sent"]] for each in ended)
    for each in told:
        assert each["actions"] == [["shed late-arrival", "done"]]  # once, wherever the worker died
        assert each["sheds"] == ([0.25] if each in opened else [0.0])  # neither late nor forgotten
        ids = {line.split()[1]: {other.split()[0] for other in each["received"]} for line in each["received"]}
        assert ids.keys() == ({"opened"} if each in opened else {"opened", "closed"})
        sent = [line for line in each["received"] if line.endswith("opened")]
        assert len({*sent}) == 1  # sent again, if at all, with the same id
