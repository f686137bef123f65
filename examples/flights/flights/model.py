"""The model: will the flight arrive more than 15 minutes late?"""

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

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
    gates=[ms.beats("auc", by=0.005), ms.at_most("brier", 0.2)],
    holdout="30d",
    owner="flights",
)
def train(data: ms.TrainingSet, run: ms.Run):
    """Gradient boosting over the recent past of the airport, the airline and the destination."""
    categories = [name for name in data.train.X if data.train.X[name].dtype == object]
    numbers = [name for name in data.train.X if name not in categories]
    estimator = make_pipeline(
        ColumnTransformer(
            [
                ("numbers", "passthrough", numbers),
                ("categories", OneHotEncoder(handle_unknown="ignore", sparse_output=False), categories),
            ]
        ),
        HistGradientBoostingClassifier(
            max_iter=120, learning_rate=0.08, max_leaf_nodes=31, min_samples_leaf=80, random_state=run.seed
        ),
    )
    estimator.fit(data.train.X, data.train.y)
    run.log_param("max_iter", 120)
    return estimator
