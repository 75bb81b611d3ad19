"""How the arrival of a package is told."""

from typing import Protocol


class Progress(Protocol):
    """Told how a step goes, partly from other threads. `total`: bytes, where they are known."""

    def begins(self, total: int | None) -> None: ...

    def arrived(self, count: int) -> None: ...


class Silence:
    """Nobody wants to know."""

    def begins(self, total: int | None) -> None:
        pass

    def arrived(self, count: int) -> None:
        pass
