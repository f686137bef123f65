"""Trainings whose module is spread over processes: by shards, within layers, and by layers."""
