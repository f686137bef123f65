"""The model: will the flight arrive more than 15 minutes late?"""

import mainspring as ms
from flights.features import (
    CarrierTraffic,
    DestinationArrivals,
    OriginTraffic,
    Schedule,
    Weather,
    arrivals,
    flights,
)


@ms.model(
    "late-arrival",
    observations=flights,
    features=[OriginTraffic, CarrierTraffic, DestinationArrivals, Weather, Schedule],
    baseline=[Schedule],
    label=arrivals.late,
    task="binary",
    gates=[ms.gates.beats("auc", by=0.005), ms.gates.at_most("brier", 0.2)],
    holdout="30d",
    owner="flights",
)
def train(data: ms.TrainingSet, run: ms.Run):
    """Gradient boosting over the recent past of the airport, the airline and the destination."""
    # Imported here, not above: every command loads this module, and only training needs scikit-learn.
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    settings = {"max_iter": 80, "learning_rate": 0.1, "max_leaf_nodes": 31, "min_samples_leaf": 100}
    run.log_params(settings)
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    encode = ColumnTransformer([("codes", codes, data.categorical), ("numbers", "passthrough", data.numeric)])
    estimator = make_pipeline(encode, HistGradientBoostingClassifier(**settings, random_state=run.seed))
    return estimator.fit(data.train.X, data.train.y)
