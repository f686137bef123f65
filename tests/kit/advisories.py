"""Known vulnerabilities of the locked dependencies, by the index's advisories: `make audit`.

Without the advisories, as behind a mirror that has none or without a network, it says so and passes.
"""

import json
import subprocess
import sys
from pathlib import Path

LOCKS = ("requirements.lock", "requirements-dev.lock")


def main() -> int:
    root = Path(__file__).parents[2]
    asked = [part for lock in LOCKS for part in ("-r", str(root / lock))]
    options = ["--disable-pip", "--format", "json", "--progress-spinner", "off"]
    command = [sys.executable, "-m", "pip_audit", *asked, *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        found = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError) as error:
        print(f"Dependencies were not audited: {type(error).__name__}.", file=sys.stderr)
        return 0
    known = [each for each in found if "skip_reason" not in each]
    for each in known:
        for flaw in each["vulns"]:
            fixed = ", ".join(flaw["fix_versions"]) or "no version"
            print(f"{each['name']} {each['version']}: {flaw['id']}, fixed in {fixed}")
    flawed = sum(bool(each["vulns"]) for each in known)
    print(f"{len(known)} of {len(found)} locked dependencies were audited; {flawed} have known vulnerabilities.")
    return int(flawed > 0)


if __name__ == "__main__":
    sys.exit(main())
