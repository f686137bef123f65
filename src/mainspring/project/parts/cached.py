"""A cached property that is safe between threads."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

__all__ = ["cached_property"]

if TYPE_CHECKING:
    from functools import cached_property
else:

    class cached_property(functools.cached_property):  # noqa: N801  (it stands for the other)
        """A cached property that is built once, even if several threads request it first."""

        def __get__(self, instance, owner=None):
            if instance is None:
                return self
            with instance._building:
                return super().__get__(instance, owner)
