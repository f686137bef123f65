"""Conformance suite of the Open Inference Protocol, for any server: `python -m oip_conformance URL`."""
