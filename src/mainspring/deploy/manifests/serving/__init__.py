"""Objects of Kubernetes that serve a project's endpoints."""
