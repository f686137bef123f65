"""Verification of the offline and the online read on a user's own data, against a brute-force read in Python."""

from mainspring.features.verify.computed import verify_computed
from mainspring.features.verify.verifier import Mismatch, Verification, Verifier

__all__ = ["Mismatch", "Verification", "Verifier", "verify_computed"]
