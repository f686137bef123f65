"""What is known about a payment at the moment it is asked for."""

import mainspring as ms

payment = ms.Entity("payment", keys={"payment": ms.String}, description="One payment")
card = ms.Entity("card", keys={"card": ms.String}, description="A card, whoever holds it")
merchant = ms.Entity("merchant", keys={"merchant": ms.String}, description="A shop that takes cards")

payments = ms.Source(
    "payments",
    schema={
        "payment": ms.String,
        "card": ms.String,
        "merchant": ms.String,
        "amount": ms.Float64,
        "country": ms.String,
    },
    event_time="paid_at",
    recorded_time="recorded_at",
    id="payment",
    checks=[ms.checks.not_null("payment", "card", "amount"), ms.checks.in_range("amount", 0, 100_000)],
    description="Payments as they were asked for; a correction is the same payment, recorded later",
    owner="risk",
    pii=["card"],
)

cards = ms.Source(
    "cards",
    schema={"card": ms.String, "home": ms.String, "limit": ms.Float64},
    event_time="changed_at",
    checks=[ms.checks.not_null("card", "home", "limit")],
    description="A card's record whenever it changes",
    owner="risk",
    pii=["card"],
)

chargebacks = ms.Source(
    "chargebacks",
    schema={"payment": ms.String, "merchant": ms.String, "fraud": ms.Boolean},
    event_time="disputed_at",
    recorded_time="recorded_at",
    checks=[ms.checks.not_null("payment", "fraud")],
    description="Disputed payments, as the bank hears of them; a withdrawn dispute is a later row",
    owner="risk",
)


@ms.feature_view(entity=card, source=payments, owner="risk")
class CardHistory:
    """How the card has been used."""

    payments_1h = ms.count(window="1h")
    payments_24h = ms.count(window="24h")
    spent_24h = ms.sum("amount", window="24h", default=0.0)
    usual_60d = ms.mean("amount", window="60d")
    countries_7d = ms.distinct("country", window="7d")


@ms.feature_view(entity=card, source=cards, owner="risk")
class CardRecord:
    """What the bank knows of the card."""

    home = ms.last("home")
    limit = ms.last("limit")


@ms.feature_view(entity=merchant, source=chargebacks, owner="risk")
class MerchantRecord:
    """How often payments at the merchant were disputed, as far as the bank had heard."""

    disputes_60d = ms.count(window="60d", where=ms.col("fraud"))


@ms.on_demand_features(owner="risk")
class Payment:
    """The payment itself, beside what is usual for the card."""

    amount = ms.col("amount")
    hour = ms.col("paid_at").hour("Europe/Berlin")
    abroad = ms.col("country") != CardRecord.home
    against_usual = ms.col("amount") / CardHistory.usual_60d
    of_limit = (CardHistory.spent_24h + ms.col("amount")) / CardRecord.limit


asked = ms.Observations(
    payments,
    keys=[payment, card, merchant],
    at=ms.col("paid_at"),
    where=ms.col("amount") > 0,  # nothing is stolen by asking whether a card is there
)
