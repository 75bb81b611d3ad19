"""`aihub`, the admins' command. Nothing heavy is imported here: `aihub --help` must be quick."""

from backend.cli.main import main

__all__ = ["main"]
