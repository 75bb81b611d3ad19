"""What a terminal showed in a real run, for the documentation; and whether a later run still says the same.

The walk-through's test writes `MADE`; `python -m tests.e2e.pictures image-answer` takes it over into the documentation.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.box import ROOT

MADE = ROOT / "var" / "walkthrough" / "image-answer.txt"
KEPT = ROOT / "docs" / "images" / "image-answer.txt"
_WIDTH = 100


class Transcript:
    """`names`: what of this machine is shown by another name, such as a temporary folder."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = dict(names)
        self._lines: list[str] = []

    def add(self, argv: Sequence[str | Path], said: str, *, background: bool = False) -> None:
        """A command and what it printed. A step under way, which a terminal shows for a moment, is left out."""
        command = self._shown(shlex.join(map(str, argv)))
        self._lines.append(f"$ {_broken(command)}{' &' if background else ''}")
        lines = self._shown(said).splitlines()
        self._lines += [line for line in lines if line.strip() and not line.endswith(" …")]

    @property
    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def _shown(self, text: str) -> str:
        for real, shown in self._names.items():
            text = text.replace(real, shown)
        return text


def shape(text: str) -> str:
    """The text without what differs from run to run: numbers."""
    return re.sub(r"[0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?", "#", re.sub(r"\s*\\\n\s*", " ", text))


def _broken(command: str) -> str:
    """Over several lines, as people write long commands."""
    lines, line = [], ""
    for word in re.split(r" (?=--|-d |-m |mlflow )", command):
        if line and len(line) + len(word) > _WIDTH:
            lines.append(line)
            line = f"    {word}"
        else:
            line = f"{line} {word}" if line else word
    return " \\\n".join([*lines, line])
