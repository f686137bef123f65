"""One side of bench/monitor.py, run by the interpreter of a peer's environment: the drift of one window.

python monitor_peer.py evidently FOLDER   reads training.parquet and window.parquet there

Prints the processor time of comparing the window with the training rows, which are read and profiled before, and the
process's peak memory.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd

Compare = Callable[[pd.DataFrame], object]


def evidently(training: pd.DataFrame) -> Compare:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(numerical_columns=list(training))
    reference = Dataset.from_pandas(training, data_definition=definition)
    report = Report([DataDriftPreset(num_method="wasserstein")], include_tests=False)
    return lambda rows: report.run(Dataset.from_pandas(rows, data_definition=definition), reference).dict()


def nannyml(training: pd.DataFrame) -> Compare:
    import nannyml as nml

    calculator = nml.UnivariateDriftCalculator(
        column_names=list(training), chunk_number=1, continuous_methods=["jensen_shannon"]
    )
    calculator.fit(training)
    return lambda rows: calculator.calculate(rows).to_df()


def alibi_detect(training: pd.DataFrame) -> Compare:
    from alibi_detect.cd import TabularDrift

    detector = TabularDrift(training.to_numpy(), p_val=0.05)
    return lambda rows: detector.predict(rows.to_numpy(), drift_type="feature")


def whylogs(training: pd.DataFrame) -> Compare:
    import whylogs as why
    from whylogs.viz.drift.column_drift_algorithms import calculate_drift_scores

    reference = why.log(training).view()
    return lambda rows: calculate_drift_scores(why.log(rows).view(), reference, with_thresholds=True)


PEERS: dict[str, Callable[[pd.DataFrame], Compare]] = {
    "evidently": evidently,
    "nannyml": nannyml,
    "alibi-detect": alibi_detect,
    "whylogs": whylogs,
}


def main() -> None:
    warnings.simplefilter("ignore")
    name, folder = sys.argv[1], Path(sys.argv[2])
    compare = PEERS[name](pd.read_parquet(folder / "training.parquet"))
    rows = pd.read_parquet(folder / "window.parquet")
    compare(rows.head(1_000).copy())  # what is imported or compiled at first use
    began = time.process_time()
    compare(rows)
    took = time.process_time() - began
    status = Path("/proc/self/status").read_text()
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"us": took / len(rows) * 1e6, "MB": round(int(peak) / 1024, 1)}))


if __name__ == "__main__":
    main()
