"""Channels: pure functions from windows of sketches to signals, calibrated on the windows' own history.

`judging.judge` judges a version of an endpoint. Nothing here reads a store or a clock.
"""
