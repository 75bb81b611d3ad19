"""How hard a block is compressed: as fast as the size promise allows.

The promise: a package is at most 15 % larger than `gzip -6` would make it. ISA-L's level 2 keeps it for weights (no larger at all) and for
numbers and vocabularies written as text (5 to 13 %), and breaks it for source code and prose (14 to 22 %); ISA-L's level 3 packs those at
two thirds of the speed (14 %), libdeflate's level 1 at half of it (9 to 13 %). So a sample of the content is compressed in all ways now and
then, and a block gets the fastest level with which the package as a whole stays within the limit. How much larger than gzip's a level's
output is varies little within a content, unlike the sizes themselves: so what gzip would make of a block is taken from what the block has
become, divided by that. One sample says it within 4 %, so the samples of one content count together, and the limit comes close to the
promise with their number, as the error of their mean shrinks.
The choice depends on the content alone, so that equal content still gives an equal file.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import deflate
from isal import isal_zlib

PROMISE, ERROR = 1.148, 0.04
SAMPLE, WINDOW = 1 << 16, 1 << 15
CLOSELY, EVERY = 16, 32
# An older sample counts less; none counts that differs from the newest by more than this, as text does from weights.
FADING, OTHER_CONTENT = 0.9, 0.1
GZIP = 31

Compress = Callable[[bytes], bytes]


def fast(block: bytes) -> bytes:
    """One gzip member, by ISA-L."""
    return isal_zlib.compress(block, 2, GZIP)


def middle(block: bytes) -> bytes:
    """One gzip member, by ISA-L."""
    return isal_zlib.compress(block, 3, GZIP)


def dense(block: bytes) -> bytes:
    """One gzip member, by libdeflate."""
    return bytes(deflate.gzip_compress(block, 1))


LEVELS: tuple[Compress, ...] = (fast, middle, dense)


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
        self._sampled = dict.fromkeys(LEVELS, 0.0)
        self._gzip_sampled = 0.0
        self._gzip_ratio = 1.0
        self._size = 0.0
        self._gzip_size = 0.0

    def choose(self, block: bytes) -> Choice:
        """`settle` must be told what it has become, always as many blocks later."""
        if self._seen < CLOSELY or self._seen % EVERY == 0:
            self._sample(block)
        self._seen += 1
        limit = PROMISE - ERROR / math.sqrt(self._samples)
        gzip_size = self._gzip_ratio * len(block)
        allowed = limit * (self._gzip_size + gzip_size) - self._size
        choices = [Choice(level, self._excess(level) * gzip_size, self._excess(level)) for level in LEVELS]
        choice = next((each for each in choices if each.size <= allowed), None) or min(choices, key=lambda each: each.size)
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
        start = max((len(block) - SAMPLE) // 2, 0)
        before, sample = block[max(start - WINDOW, 0) : start], block[start : start + SAMPLE]
        packer = zlib.compressobj(6, zlib.DEFLATED, -15, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, before)
        gzip_size = len(packer.compress(sample) + packer.flush())
        sizes = {level: max(len(level(before + sample)) - len(level(before)), 1) for level in LEVELS}
        known = FADING if self._gzip_sampled and abs(sizes[fast] / gzip_size - self._excess(fast)) <= OTHER_CONTENT else 0.0
        self._sampled = {level: known * self._sampled[level] + sizes[level] for level in LEVELS}
        self._gzip_sampled = known * self._gzip_sampled + gzip_size
        self._gzip_ratio = gzip_size / len(sample)

    def _excess(self, level: Compress) -> float:
        return self._sampled[level] / self._gzip_sampled
