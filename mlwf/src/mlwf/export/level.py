"""How hard a block is compressed: as fast as the size promise allows.

The promise: a package is at most 15 % larger than `gzip -6` would make it. ISA-L's fast level keeps it for weights (no larger at all)
and for numbers and vocabularies written as text (5 to 8 %), and breaks it for source code and prose (14 to 22 %), which the dense level
packs at half the speed (9 to 14 %). So a sample of the content is compressed all three ways now and then, and a block gets the fast
level while the package as a whole is expected to stay within the limit; that is set lower than the promise, as a sample may mislead.
The choice depends on the content alone, so that equal content still gives an equal file.
"""

import zlib

from isal import isal_zlib

FAST, DENSE = 2, 3
LIMIT = 1.10
SAMPLE = 1 << 15
EVERY = 8
MEMORY = 9


def compress_at(block: bytes, before: bytes, level: int) -> bytes:
    """One block as raw deflate that ends on a byte; `before` is what came before it (32 KB are used). `level`: ISA-L's, 0 to 3."""
    packer = isal_zlib.compressobj(level, isal_zlib.DEFLATED, -15, MEMORY, isal_zlib.Z_DEFAULT_STRATEGY, before)
    return packer.compress(block) + packer.flush(isal_zlib.Z_SYNC_FLUSH)


class LevelChooser:
    """Chooses each block's level, in the order of the file."""

    def __init__(self) -> None:
        self._seen = 0
        self._ratio = {FAST: 1.0, DENSE: 1.0}
        self._reference_ratio = 1.0
        self._expected = 0.0
        self._reference = 0.0

    def choose(self, block: bytes) -> int:
        if self._seen % EVERY == 0:
            self._sample(block)
        self._seen += 1
        self._reference += self._reference_ratio * len(block)
        affordable = self._expected + self._ratio[FAST] * len(block) <= LIMIT * self._reference
        level = FAST if affordable or self._ratio[FAST] <= self._ratio[DENSE] else DENSE
        self._expected += self._ratio[level] * len(block)
        return level

    def _sample(self, block: bytes) -> None:
        middle = max((len(block) - SAMPLE) // 2, 0)
        before, sample = block[max(middle - SAMPLE, 0) : middle], block[middle : middle + SAMPLE]
        if not sample:
            return
        for level in self._ratio:
            self._ratio[level] = len(compress_at(sample, before, level)) / len(sample)
        packer = zlib.compressobj(6, zlib.DEFLATED, -15, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, before)
        self._reference_ratio = len(packer.compress(sample) + packer.flush()) / len(sample)
