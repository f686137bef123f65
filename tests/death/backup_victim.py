"""Backs up or restores the shop in a folder, and dies by SIGKILL before a part."""

import os
import signal
import sys
import time
from itertools import count
from pathlib import Path

from kit.erased_shop import opened
from mainspring.operations.backup.making import backup
from mainspring.operations.backup.restoring import restore


def main() -> None:
    folder, dies_at = Path(sys.argv[2]), int(sys.argv[3])
    sys.path.insert(0, str(folder))
    project, parts = opened(folder, restores=True), count()

    def told(_: str) -> None:
        if next(parts) == dies_at:
            time.sleep(0.3)  # pieces of the part before are written aside
            os.kill(os.getpid(), signal.SIGKILL)

    {"backup": backup, "restore": restore}[sys.argv[1]](project, str(folder / "backups"), told=told)


if __name__ == "__main__":
    main()
