"""Simulation of endpoints: measured here, compared under policies of scaling, and the chosen one written."""
