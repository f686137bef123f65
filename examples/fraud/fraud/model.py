"""The model: will the payment be charged back as fraud?"""

import mainspring as ms
from fraud.features import CardHistory, MerchantRecord, Payment, asked, chargebacks, payment


@ms.model(
    "fraud",
    observations=asked,
    features=[CardHistory, MerchantRecord, Payment],
    baseline=[Payment],
    # A chargeback comes 5 to 40 days late, and that there is none is known after 40.
    label=ms.Label(chargebacks.fraud, matures="40d", otherwise=False, entity=payment),
    task="binary",
    gates=[ms.gates.beats("average_precision", by=0.02), ms.gates.at_least("average_precision", 0.3)],
    holdout="40d",
    owner="risk",
)
def train(data: ms.TrainingSet, run: ms.Run):
    """Gradient boosting over the payment and the recent past of its card and merchant."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    settings = {"max_iter": 60, "learning_rate": 0.1, "max_leaf_nodes": 8, "min_samples_leaf": 20}
    run.log_params(settings)
    trees = HistGradientBoostingClassifier(**settings, random_state=run.seed)
    return trees.fit(data.train.X, data.train.y)
