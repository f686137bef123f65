"""Feature views and their two reads: as of each observation's time from the lake, as of now from an online store."""

from mainspring.features.declaring import feature_view, on_demand_features, request_features
from mainspring.features.model import (
    Aggregation,
    Entity,
    FeatureGroup,
    FeatureView,
    MaterialiseReport,
    Observations,
    RequestFeatures,
    Status,
    views_of,
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
    "on_demand_features",
    "request_features",
    "views_of",
]
