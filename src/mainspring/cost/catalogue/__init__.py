"""Catalogue of list prices: the shipped snapshot, and providers' own files."""
