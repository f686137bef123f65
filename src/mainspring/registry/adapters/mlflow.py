"""The registry on MLflow's SQLAlchemy stores."""

from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.registry.adapters.mlflow_versions import MlflowVersions

__all__ = ["MlflowTracking", "MlflowVersions"]
