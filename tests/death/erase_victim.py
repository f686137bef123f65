"""Erases Ana from the shop in a folder, and dies by SIGKILL before a step."""

import os
import signal
import sys
from itertools import count
from pathlib import Path

from kit.erased_shop import opened, subject
from mainspring.operations.subjects.erasing import erase


def main() -> None:
    folder, dies_at = Path(sys.argv[1]), int(sys.argv[2])
    sys.path.insert(0, str(folder))
    project, steps = opened(folder), count()

    def told(_: str) -> None:
        if next(steps) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    erase(project, [subject(project)], told=told)


if __name__ == "__main__":
    main()
