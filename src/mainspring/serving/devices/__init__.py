"""Devices that models run on: which a process has, and how ONNX Runtime is told."""
