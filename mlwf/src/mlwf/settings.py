"""The one reader of the environment. What its variables mean stands in docs/reference/mlwf.md, under Environment, and nowhere else."""

import os
from collections.abc import Mapping


def environment() -> Mapping[str, str]:
    """The process's environment. Everything else is given it, so that a test (or the console) can give another."""
    return os.environ
