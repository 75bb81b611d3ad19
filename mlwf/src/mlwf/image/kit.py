"""What every step of a build works with."""

from dataclasses import dataclass

from mlwf.image.cache import Cache
from mlwf.image.process import Runner
from mlwf.image.squash import Squash
from mlwf.image.steps import Steps
from mlwf.image.tool import ContainerTool


@dataclass(frozen=True)
class Kit:
    """The container tool, how programs are run, how file systems are packed, where results are kept, and whom to tell."""

    tool: ContainerTool
    runner: Runner
    squash: Squash
    cache: Cache
    steps: Steps

    def warns(self, text: str) -> None:
        """Tells the user, and the log."""
        self.runner.note(text)
        self.steps.warns(text)

    @property
    def processors(self) -> int:
        return self.squash.processors
