"""Requests to CloudWatch that make alarms of an endpoint's objectives, for each of its variants.

Names of metrics: https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mainspring.deploy.alarms import LONGEST_S, BurnAlarm

WINDOW, BURN = "WindowAlarm", "BurnAlarm"  # kinds of pieces
_SPACE = "AWS/SageMaker"
_MICROSECONDS = 1_000_000


def alarm_requests(
    endpoint: str, variants: Sequence[str], alarms: Sequence[BurnAlarm], notify: str
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the kind, the name and the request of each alarm: two windows, then the alarm on both that tells.

    Args:
        endpoint: Name of the endpoint there.
        alarms: Of its objectives; windows beyond a day are left out.
        notify: Topic that is told.
    """
    for variant in variants:
        of = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}]
        for each in alarms:
            if each.long_s > LONGEST_S:
                continue
            names = {f"{endpoint}-{variant}-{window}": seconds for window, seconds in each.windows.items()}
            for name, seconds in names.items():
                yield WINDOW, name, {"AlarmName": name, **_window(each, of, seconds)}
            name = f"{endpoint}-{variant}-{each.name}"
            told = {"AlarmActions": [notify], "OKActions": [notify]}
            rule = " AND ".join(f'ALARM("{window}")' for window in names)
            about = each.told(each.long_s, each.short_s)
            yield BURN, name, {"AlarmName": name, "AlarmDescription": about, "AlarmRule": rule, **told}


def _window(alarm: BurnAlarm, of: list[dict[str, str]], seconds: int) -> dict[str, Any]:
    common = {
        "AlarmDescription": f"{alarm.told(seconds)} It tells nobody by itself.",
        "ComparisonOperator": "GreaterThanThreshold",
        "EvaluationPeriods": 1,
        "TreatMissingData": "notBreaching",
    }
    if alarm.within_s:
        return {
            **common,
            "Namespace": _SPACE,
            "MetricName": "ModelLatency",
            "Dimensions": of,
            "ExtendedStatistic": alarm.percentile,
            "Period": seconds,
            "Threshold": alarm.within_s * _MICROSECONDS,
            "EvaluateLowSampleCountPercentile": "ignore",
        }

    def summed(id: str, metric: str) -> dict[str, Any]:
        what = {"Namespace": _SPACE, "MetricName": metric, "Dimensions": of}
        return {"Id": id, "MetricStat": {"Metric": what, "Period": seconds, "Stat": "Sum"}, "ReturnData": False}

    share = {
        "Id": "share",
        "Label": "Share of requests that failed",
        "Expression": f"IF(bad >= {alarm.fewest_in(seconds)}, bad / total, 0)",
        "ReturnData": True,
    }
    metrics = [share, summed("bad", "Invocation5XXErrors"), summed("total", "Invocations")]
    return {**common, "Threshold": alarm.share, "Metrics": metrics}
