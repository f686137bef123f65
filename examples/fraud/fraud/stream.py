"""Payments judged as they happen: a rule over windows of the stream, the model, and a state of each card."""

import msgspec

import mainspring as ms
from fraud.features import payments


class Alerted(msgspec.Struct, frozen=True):
    """State of a card.

    Attributes:
        at: Time of the payment that the last alert was about, UTC epoch microseconds.
        alerts: Number of alerts so far.
    """

    at: int = 0
    alerts: int = 0


HOUR = 3_600_000_000  # microseconds


def judge(payment: ms.StreamEvent, card: Alerted) -> tuple[dict[str, object], Alerted]:
    """Return whether the desk is told of a payment, and why: at most once an hour of each card."""
    reasons = [
        reason
        for reason, holds in {
            "the model": payment.outputs["probability"] > 0.9,
            "three payments within ten minutes": payment.windows["payments_10m"] >= 2,
            "two countries within an hour": payment.windows["countries_1h"] >= 2,
        }.items()
        if holds
    ]
    alert = bool(reasons) and payment.at - card.at >= HOUR
    told = {"alert": alert, "reasons": reasons, "amount": payment.fields["amount"]}
    return told, Alerted(payment.at, card.alerts + 1) if alert else card


ms.StreamEndpoint(
    "fraud-stream",
    model="fraud@champion",
    topic="payments",
    source=payments,
    key="card",
    unique="payment",  # producers send again what they are not sure of
    windows={
        "payments_10m": ms.count(window="10m"),
        "spent_1h": ms.sum("amount", window="1h", default=0.0),
        "countries_1h": ms.distinct("country", window="1h"),
        "spree": ms.session(gap="15m"),
    },
    state=Alerted,
    rule=judge,
    allowed_lateness="10m",
    to=[ms.to_table("fraud_scores"), ms.to_topic("fraud-alerts", where="alert")],
    description="Payments as they are asked for, judged by a rule and the model",
)
