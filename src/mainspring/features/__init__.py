"""Feature views and their two reads: as of each observation's time from the lake, as of now from an online store."""

from mainspring.features.model import (
    Aggregation,
    Entity,
    FeatureGroup,
    FeatureView,
    MaterialiseReport,
    Observations,
    RequestFeatures,
    Status,
    feature_view,
    request_features,
)

__all__ = [
    "Aggregation",
    "Entity",
    "FeatureGroup",
    "FeatureView",
    "MaterialiseReport",
    "Observations",
    "RequestFeatures",
    "Status",
    "feature_view",
    "request_features",
]
