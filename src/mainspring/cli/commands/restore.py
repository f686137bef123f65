"""`mainspring restore`; see `backup`."""

from mainspring.cli.commands.backup import restore as command

__all__ = ["command"]
