"""What every step of a build works with."""

from dataclasses import dataclass

from mlwf.image.cache import Cache
from mlwf.image.process import Runner
from mlwf.image.squash import Squash
from mlwf.image.tool import ContainerTool


@dataclass(frozen=True)
class Kit:
    """The container tool, how programs are run, how file systems are packed, and where results are kept."""

    tool: ContainerTool
    runner: Runner
    squash: Squash
    cache: Cache

    @property
    def processors(self) -> int:
        return self.squash.processors
