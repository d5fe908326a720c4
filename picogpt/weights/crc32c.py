"""CRC-32C, the checksum in TensorFlow's files, in NumPy alone, at two to three gigabytes a second on one core.

The bits of a message are the coefficients of a polynomial over {0, 1}, that of the highest power of x first. The
checksum is its remainder after division by a polynomial P. Adding a multiple of P does not change the remainder.
Every multiple with few terms thus gives a rule: x^5685 + x^1362 + x^426 + 1 is one, so a bit may be cleared if the
bits 4323, 5259 and 5685 places after it are flipped. The square of such a polynomial is a multiple too and has the same
terms with doubled exponents. So the rule also holds for whole words of 32 bits, and for 2, 4, 8 times the distances:
long runs of words are cleared by three XORs each, which NumPy does as fast as it reads memory.

The polynomials were found by a search for four, and for six, powers of x whose remainders cancel.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from picogpt.arrays import Array

POLYNOMIAL = 0x82F63B78  # P without its x^32, the highest power in the lowest bit
ALL_ONES = 0xFFFFFFFF
START = (0x641F6454).to_bytes(4, "little")  # a message of these bits alone has the remainder ALL_ONES

# in words: a word may be cleared if the words at these distances after it are XORed with it
RULES = (
    *(tuple(scale * n for n in (4323, 5259, 5685)) for scale in (8, 4, 2, 1)),
    *(tuple(scale * n for n in (154, 177, 183, 258, 290)) for scale in (16, 8, 4, 2, 1)),
)
SHORTEST = RULES[-1][-1]  # words that no rule can shorten
CHUNK = 1 << 19  # bytes; a core's own cache holds a few times as many


def masked(data: bytes | Array) -> int:
    """The CRC-32C of some bytes, as TensorFlow and LevelDB store it: rotated by 15 bits, plus a constant.

    >>> hex(masked(b"123456789"))
    '0xc78ab0e5'
    """
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & ALL_ONES


def crc32c(data: bytes | Array) -> int:
    """The CRC-32C (Castagnoli) of some bytes. It takes at most a megabyte of memory.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    array = np.frombuffer(data, np.uint8)
    odd = len(array) % 4
    words = np.frombuffer(bytes(4 - odd) + START + array[:odd].tobytes(), "<u4")  # zeros in front change nothing
    for start in range(odd, len(array), CHUNK):
        words = np.concatenate([words, array[start : start + CHUNK].view("<u4")])
        for rule in RULES:
            words = _shortened(words, rule)
    bits = np.unpackbits(words.astype("<u4").view(np.uint8), bitorder="little")
    return int(np.bitwise_xor.reduce(bits * _remainders()[-len(bits) :])) ^ ALL_ONES


def _shortened(words: Array, rule: tuple[int, ...]) -> Array:
    """Words with the same remainder, but fewer if there are more than the rule needs. Changes its argument."""
    start, last = 0, len(words) - rule[-1]
    while start < last:
        stop = min(start + rule[0], last)
        for distance in rule:
            words[start + distance : stop + distance] ^= words[start:stop]
        start = stop
    return words[start:]


@cache
def _remainders() -> Array:
    """The remainder of each bit of the SHORTEST words, that of x^32 for the last bit: uint32 [32 * SHORTEST]."""
    found = [POLYNOMIAL]
    while len(found) < 32 * SHORTEST:
        found.append(found[-1] >> 1 ^ (POLYNOMIAL if found[-1] & 1 else 0))
    return np.array(found[::-1], np.uint32)
