"""Advice on the next step of a project, by what it declares and how it is used."""

from mainspring.operations.advise.facts import collect as collect
from mainspring.operations.advise.folder import first_page as first_page
from mainspring.operations.advise.rules import advise as advise

__all__ = ["advise", "collect", "first_page"]
