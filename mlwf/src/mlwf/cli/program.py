"""What the three commands' scripts call: mlwf's own packages go before those of PYTHONPATH."""

import os
import sys
from pathlib import Path

from mlwf.settings import environment

OWN = str(Path(__file__).resolve().parents[2])


def mlwf() -> None:
    """The command `mlwf`."""
    _own_packages_first()
    from mlwf.cli.main import main

    main()


def export_model() -> None:
    """The command `mlwf_export_model`."""
    _own_packages_first()
    from mlwf.cli.export_model import main

    main()


def create_image() -> None:
    """The command `mlwf_create_image`."""
    _own_packages_first()
    from mlwf.cli.create_image import main

    main()


def _own_packages_first() -> None:
    sys.path[:] = own_first(sys.path, environment().get("PYTHONPATH", ""))


def own_first(path: list[str], named: str) -> list[str]:
    """`path` with what PYTHONPATH names at its end, but for the folder that this package itself is in.

    Environment modules put other versions of requests or click there, of another Python even; an empty part (`/a:$PYTHONPATH`) is the
    folder where the user happens to be, with a yaml.py in it, perhaps.
    """
    last = {os.path.realpath(part) for part in named.split(os.pathsep)} - {OWN} if named else set()
    return sorted(path, key=lambda each: os.path.realpath(each) in last)
