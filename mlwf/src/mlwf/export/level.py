"""How hard a block is compressed: as fast as the size promise allows.

The promise: a package is at most 15 % larger than `gzip -6` would make it. ISA-L's level 2 keeps it for weights (no larger at all) and for
numbers and vocabularies written as text (5 to 8 %), and breaks it for source code and prose (14 to 22 %), which libdeflate's level 1 packs
at half the speed (9 to 13 %). So a sample of the content is compressed all three ways now and then, and a block gets the fast level while
the package as a whole stays within the limit. How much larger than gzip's a level's output is varies little within a content, unlike the
sizes themselves: so what gzip would make of a block is taken from what the block has become, divided by that. The limit comes close to the
promise with the number of samples, as the error of their mean shrinks.
The choice depends on the content alone, so that equal content still gives an equal file.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import deflate
from isal import isal_zlib

PROMISE, ERROR = 1.148, 0.02
SAMPLE, WINDOW = 1 << 16, 1 << 15
CLOSELY, EVERY = 16, 16
GZIP = 31

Compress = Callable[[bytes], bytes]


def fast(block: bytes) -> bytes:
    """One gzip member, by ISA-L."""
    return isal_zlib.compress(block, 2, GZIP)


def dense(block: bytes) -> bytes:
    """One gzip member, by libdeflate."""
    return bytes(deflate.gzip_compress(block, 1))


@dataclass(frozen=True)
class Choice:
    """How a block is compressed; `size`: bytes expected of it, `excess`: that against what gzip would make of it."""

    compress: Compress
    size: float
    excess: float


class LevelChooser:
    """Chooses how each block is compressed, in the order of the file."""

    def __init__(self) -> None:
        self._seen = self._samples = 0
        self._ratio: dict[Compress, float] = {}
        self._gzip_ratio = 1.0
        self._size = 0.0
        self._gzip_size = 0.0

    def choose(self, block: bytes) -> Choice:
        """`settle` must be told what it has become, always as many blocks later."""
        if self._seen < CLOSELY or self._seen % EVERY == 0:
            self._sample(block)
        self._seen += 1
        size, gzip_size = self._ratio[fast] * len(block), self._gzip_ratio * len(block)
        limit = PROMISE - ERROR / math.sqrt(self._samples)
        affordable = self._size + size <= limit * (self._gzip_size + gzip_size)
        chosen = fast if affordable or self._ratio[fast] <= self._ratio[dense] else dense
        choice = Choice(chosen, self._ratio[chosen] * len(block), self._ratio[chosen] / self._gzip_ratio)
        self._count(choice, choice.size)
        return choice

    def settle(self, choice: Choice, size: int) -> None:
        """The block has become `size` bytes."""
        self._count(choice, size - choice.size)

    def _count(self, choice: Choice, size: float) -> None:
        self._size += size
        self._gzip_size += size / choice.excess

    def _sample(self, block: bytes) -> None:
        """Only what the sample adds to the text before it counts: a block's beginning is dear, and a block is much longer than a sample."""
        self._samples += 1
        middle = max((len(block) - SAMPLE) // 2, 0)
        before, sample = block[max(middle - WINDOW, 0) : middle], block[middle : middle + SAMPLE]
        packer = zlib.compressobj(6, zlib.DEFLATED, -15, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, before)
        self._gzip_ratio = len(packer.compress(sample) + packer.flush()) / len(sample)
        for compress in (fast, dense):
            self._ratio[compress] = max(len(compress(before + sample)) - len(compress(before)), 1) / len(sample)
