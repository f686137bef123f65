"""Deployments to SageMaker: its options and requests."""
