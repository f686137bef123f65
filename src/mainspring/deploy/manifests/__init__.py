"""Manifests of Kubernetes objects that run a project's work, rendered without a cluster."""
