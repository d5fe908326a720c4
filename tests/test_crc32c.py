"""CRC-32C in NumPy against the definition, bit by bit."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from picogpt.weights.crc32c import CHUNK, RULES, SHORTEST, crc32c, masked


def by_definition(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"a", 0xC1D04330),
        (b"123456789", 0xE3069283),
        # RFC 3720, B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_published_values(data, expected):
    assert crc32c(data) == expected


def test_masked():
    assert masked(b"123456789") == 0xC78AB0E5
    assert masked(b"") == 0xA282EAD8


@given(st.binary(max_size=40))
def test_short_messages(data):
    assert crc32c(data) == by_definition(data)


@given(st.integers(0, 3 * 4 * SHORTEST), st.integers(0, 2**32 - 1))
@example(4 * SHORTEST - 8, 0)
@example(4 * SHORTEST - 4, 0)
@example(4 * SHORTEST, 0)
@example(4 * SHORTEST + 4, 0)
def test_messages_that_rules_shorten(n_bytes, seed):
    data = np.random.default_rng(seed).bytes(n_bytes)
    assert crc32c(data) == by_definition(data)


@pytest.mark.parametrize("n_bytes", [4 * RULES[0][-1] + 4, CHUNK - 1, CHUNK, CHUNK + 3, 2 * CHUNK + 4])
def test_long_messages(n_bytes):
    """crc(a) is known where crc(a + crc(a)) is the same for all a: checks lengths for which the definition is slow."""
    data = np.random.default_rng(n_bytes).bytes(n_bytes)
    assert crc32c(data + crc32c(data).to_bytes(4, "little")) == 0x48674BC7
    assert crc32c(data) != crc32c(data[:-1] + bytes([data[-1] ^ 1]))


def test_a_long_message_as_by_definition():
    data = np.random.default_rng(0).bytes(CHUNK + 5)
    assert crc32c(data) == by_definition(data)


def test_unaligned_arrays():
    data = np.frombuffer(np.random.default_rng(0).bytes(100_001), np.uint8)
    assert crc32c(data[1:]) == crc32c(data[1:].tobytes())


def test_the_data_stay_as_they_are_and_little_memory_is_taken():
    data = np.arange(4 << 20, dtype=np.uint8)
    crc32c(data[:100])
    tracemalloc.start()
    before = crc32c(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20
    assert crc32c(data) == before
    assert (data == np.arange(4 << 20, dtype=np.uint8)).all()
