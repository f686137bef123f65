"""Channels: pure functions from windows of sketches to signals, calibrated on the windows' own history.

`signals` judges an endpoint. Nothing here reads a store or a clock.
"""
