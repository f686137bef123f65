"""Whether the two reads agree on a user's own data: each compared with one that goes through every row in Python."""

from mainspring.features.verify.computed import verify_computed
from mainspring.features.verify.verifier import Mismatch, Verification, Verifier

__all__ = ["Mismatch", "Verification", "Verifier", "verify_computed"]
