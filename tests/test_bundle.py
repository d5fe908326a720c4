"""Reading TensorFlow's checkpoints: compared with TensorFlow itself, and with malformed files."""

import hashlib
import importlib.util
import json
import os
import shutil
import tracemalloc
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picogpt.errors import UserError
from picogpt.files import UnreadableError
from picogpt.weights.bundle import FOOTER, LONGEST_NAME, MAGIC, Bundle, Entry, read_index
from picogpt.weights.crc32c import masked
from tests.bundle_writer import (
    HEADER,
    block,
    entry,
    finished,
    index_of,
    message,
    number,
    place,
    record,
    records,
    table,
    varint,
)

FROZEN = Path(__file__).resolve().parent / "data" / "checkpoints"  # see make_checkpoints.py
EXPECTED = json.loads((FROZEN / "expected.json").read_text(encoding="utf-8"))
DATA = ".data-00000-of-00001"


@pytest.fixture
def written(tmp_path):
    """Writes an index, and data, and returns the prefix."""

    return writer_at(tmp_path)


def writer_at(directory: Path):
    def write(index: bytes, data: bytes = bytes(64)) -> Path:
        for name, content in (("m.index", index), (f"m{DATA}", data)):
            (directory / name).unlink(missing_ok=True)  # a file that is written again may wait for the disk
            (directory / name).write_bytes(content)
        return directory / "m"

    return write


def read_all(prefix: Path) -> dict[str, np.ndarray]:
    with Bundle(prefix) as bundle:
        return {name: bundle.read(name) for name, entry in bundle.entries.items() if entry.dtype == "float32"}


# what TensorFlow wrote


@pytest.mark.parametrize("name", EXPECTED)
def test_reads_what_tensorflow_reads(name):
    with Bundle(FROZEN / name) as bundle:
        found = {}
        for tensor, entry in bundle.entries.items():
            found[tensor] = [entry.dtype, list(entry.shape)]
            if entry.dtype == "float32":
                array = bundle.read(tensor)
                assert array.dtype == np.float32
                assert list(array.shape) == found[tensor][1]
                found[tensor].append(hashlib.sha256(array.tobytes()).hexdigest()[:16])
            else:
                with pytest.raises(UserError, match=f"{DATA}: expected {tensor} in float32, found {found[tensor][0]}"):
                    bundle.read(tensor)
    assert found == {t: value[: len(found[t])] for t, value in EXPECTED[name].items()}
    assert sum(len(value) == 3 for value in found.values()) == {"gpt2": 148, "odd": 5, "objects": 2}[name[4:]]


@pytest.fixture(scope="module")
def tf():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    return tensorflow


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="tensorflow is not installed")
class TestAgainstTensorflow:
    def save(self, tf, prefix: Path, tensors: dict, slices=None) -> None:
        tf.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=list(tensors),
            shape_and_slices=slices or [""] * len(tensors),
            tensors=list(tensors.values()),
        )

    def assert_equal(self, tf, prefix: Path) -> list[str]:
        reader, ours = tf.train.load_checkpoint(str(prefix)), read_all(prefix)
        assert ours.keys() == reader.get_variable_to_shape_map().keys()
        for name, array in ours.items():
            np.testing.assert_array_equal(array, reader.get_tensor(name), strict=True)
        return list(ours)

    def test_frozen_ones(self, tf):
        for name in ("tf1-gpt2", "tf2-gpt2"):
            assert len(self.assert_equal(tf, FROZEN / name)) == 148

    def test_several_blocks(self, tf, tmp_path):
        """TensorFlow's blocks hold 256 kB, those of OpenAI's models are not full."""
        rng = np.random.default_rng(0)
        names = [f"model/h{i}/{100 * 'x'}{i % 7}/{'é' * (i % 3)}w" for i in range(3000)]
        self.save(tf, tmp_path / "m", {name: rng.random(i % 5, np.float32) for i, name in enumerate(names)})
        index = (tmp_path / "m.index").read_bytes()
        assert len(index) < 1 << 20
        self.assert_equal(tf, tmp_path / "m")

    def test_large_tensors(self, tf, tmp_path):
        rng = np.random.default_rng(0)
        self.save(tf, tmp_path / "m", {name: rng.random((1, 500, n), np.float32) for name, n in (("a", 999), ("b", 7))})
        self.assert_equal(tf, tmp_path / "m")

    def test_our_own_writer(self, tf, written):
        """What the tests below write is what TensorFlow reads, but for what they say."""
        data = np.arange(5, dtype=np.float32).tobytes()
        values = {
            "a": entry((2,), 0, 8, crc=masked(data[:8])),
            "ab": entry((3, 1), 8, 12, crc=masked(data[8:20])),
        }
        assert self.assert_equal(tf, written(index_of(**values), data)) == ["a", "ab"]
        blocks = block(records([(b"", HEADER), (b"a", values["a"])])), block(records([(b"ab", values["ab"])]))
        assert len(read_index(written(table(*blocks), data).with_suffix(".index"))) == 2

    def test_pieces_are_refused(self, tf, tmp_path):
        self.save(tf, tmp_path / "m", {"a": np.ones((2, 2), np.float32)}, ["4 2 0,2:-"])
        with pytest.raises(UserError, match="a piece of a partitioned one"):
            read_index(tmp_path / "m.index")

    def test_several_files_are_refused(self, tf, tmp_path):
        parts = [str(tmp_path / f"part{i}") for i in range(2)]
        for i, part in enumerate(parts):
            self.save(tf, Path(part), {f"a{i}": np.ones(2, np.float32)})
        tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(tmp_path / "m"))
        with pytest.raises(UserError, match="one file of data, found 2"):
            read_index(tmp_path / "m.index")


# the data


def test_tensors_are_views_that_stay_when_the_file_is_closed(written):
    n = 1 << 20
    data = np.arange(n, dtype=np.float32)
    prefix = written(index_of(a=entry((n,), 0, 4 * n, crc=masked(data.tobytes()))), data.tobytes())
    read_all(prefix)
    tracemalloc.start()
    with Bundle(prefix) as bundle:
        array = bundle.read("a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 << 20
    np.testing.assert_array_equal(array, data, strict=True)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_tensors_beyond_the_first_page_and_at_odd_bytes(written):
    data = np.random.default_rng(0).bytes(300_000)
    places = {"a": (3, 40), "b": (65_000, 80_000), "c": (299_996, 4), "d": (300_000, 0)}
    values = {
        name: entry((size // 4,), at, size, crc=masked(data[at : at + size])) for name, (at, size) in places.items()
    }
    found = read_all(written(index_of(**values), data))
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: data[at : at + size] for name, (at, size) in places.items()
    }


def test_every_byte_of_a_tensor_is_checked(tmp_path):
    shutil.copy(FROZEN / "tf1-odd.index", tmp_path)
    data = (FROZEN / f"tf1-odd{DATA}").read_bytes()
    with Bundle(FROZEN / "tf1-odd") as bundle:
        entries = bundle.entries
    for i in range(len(data)):
        (tmp_path / f"tf1-odd{DATA}").write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        with Bundle(tmp_path / "tf1-odd") as bundle:
            [hit] = [name for name, entry in entries.items() if entry.offset <= i < entry.offset + entry.size]
            if entries[hit].dtype == "float32":
                with pytest.raises(UserError, match=f"{DATA}: expected {hit} with checksum [0-9a-f]{{8}}, found"):
                    bundle.read(hit)


def test_a_short_file_of_data(written):
    with pytest.raises(UserError, match=f"m{DATA}: expected 8 bytes, found 7: it is damaged: delete "):
        Bundle(written(index_of(a=entry()), bytes(7)))


def test_no_data_for_no_tensors(written):
    assert read_all(written(index_of(), b"")) == {}


def test_data_that_become_shorter(written):
    data, path = bytes(8), written(index_of(a=entry(crc=masked(bytes(8)))), bytes(8)).with_name(f"m{DATA}")
    with Bundle(path.with_name("m")) as bundle:
        assert bundle.read("a").tobytes() == data
        os.truncate(path, 7)
        with pytest.raises(UnreadableError, match=rf"^{path}: cannot map it: [^:]*: nothing was changed"):
            bundle.read("a")


def test_files_are_closed(written):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in (bytes(7), bytes(8)):
            with suppress(UserError), Bundle(written(index_of(a=entry()), data)) as bundle:
                bundle.read("a")
        del bundle
    assert not caught


# paths that are not files


def test_paths_that_are_not_files(tmp_path):
    with pytest.raises(UserError, match=r"m\.index: expected a file, found none"):
        Bundle(tmp_path / "m")
    (tmp_path / "m.index").write_bytes(index_of())
    with pytest.raises(UserError, match=f"m{DATA}: expected a file, found none"):
        Bundle(tmp_path / "m")
    for make in (os.mkfifo, os.mkdir):
        make(tmp_path / f"m{DATA}")
        with pytest.raises(UserError, match=f"m{DATA}: expected a file, found a directory, a pipe or a device"):
            Bundle(tmp_path / "m")
        shutil.move(tmp_path / f"m{DATA}", tmp_path / make.__name__)


def test_a_pipe_as_index(tmp_path):
    os.mkfifo(tmp_path / "m.index")
    with pytest.raises(UserError, match="found a directory, a pipe or a device"):
        Bundle(tmp_path / "m")


def test_a_large_index(written):
    with pytest.raises(UserError, match=r"expected at most 1\.05 MB, found more"):
        Bundle(written(bytes((1 << 20) + 1)))


# the index, as a whole


def refused(written, index: bytes) -> str:
    with pytest.raises(UserError) as caught:
        read_index(written(index).with_suffix(".index"))
    assert "\n" not in str(caught.value)
    assert "m.index: expected " in str(caught.value)
    return str(caught.value)


def test_every_truncation(written):
    index = (FROZEN / "tf2-objects.index").read_bytes()
    for n in range(len(index)):
        assert "damaged: delete m.index" in refused(written, index[:n])


def test_every_flipped_bit(written):
    index = (FROZEN / "tf2-objects.index").read_bytes()
    expected, accepted = read_index(FROZEN / "tf2-objects.index"), set()
    for n in range(len(index)):
        for bit in range(8):
            data = index[:n] + bytes([index[n] ^ 1 << bit]) + index[n + 1 :]
            try:
                assert read_index(written(data).with_suffix(".index")) == expected
                accepted.add(n - len(index))
            except UserError:
                pass
    assert accepted == set(range(-FOOTER + len(footer_places(index)), -8))  # nobody reads these


def footer_places(index: bytes) -> bytes:
    return index[-FOOTER:-8].rstrip(b"\0")


def test_several_blocks_and_no_shared_bytes(written):
    values = {b"a": entry(), b"ab": entry((0, 3), 8, 0), b"b": entry((), 8, 4)}
    pairs = [(b"", HEADER), *values.items()]
    expected = {
        "a": Entry("float32", (2,), 0, 8, 0),
        "ab": Entry("float32", (0, 3), 8, 0, 0),
        "b": Entry("float32", (), 8, 4, 0),
    }
    for blocks in ([pairs], [pairs[:1], pairs[1:]], [pairs[:2], [], pairs[2:]], [[pair] for pair in pairs]):
        for share in (True, False):
            index = table(*(block(records(some, share)) for some in blocks))
            assert read_index(written(index).with_suffix(".index")) == expected


def pairs_of(*names: bytes) -> bytes:
    return table(block(records([(b"", HEADER), *((name, entry((0,), 0, 0)) for name in names)])))


GOOD = block(records([(b"", HEADER), (b"a", entry())]))
EMPTY = block(b"")
AFTER = len(GOOD)  # where the empty block is
TWICE = finished(GOOD + EMPTY, place(AFTER, EMPTY), block(records([(b"b", place(0, GOOD)), (b"c", place(0, GOOD))])))
ITSELF = finished(GOOD + EMPTY, place(AFTER, EMPTY), block(records([(b"b", place(AFTER + len(EMPTY), b"x" * 30))])))
NO_INDEX = GOOD + EMPTY + (place(AFTER, EMPTY) + varint(1 << 63) + varint(9)).ljust(40, b"\0") + MAGIC


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        # footer
        (b"", "found 0 bytes of another"),
        (table(GOOD)[-47:], "found 47 bytes of another"),
        (table(GOOD, magic=MAGIC[::-1]), "expected the index of a TensorFlow checkpoint"),
        (GOOD + bytes([255] * 40) + MAGIC, "expected a number, found ffffffffffffffffffff at byte"),
        # blocks
        (NO_INDEX, "expected a block of 9 bytes at byte 9223372036854775808"),
        (TWICE, f"expected a block at byte {AFTER}, found it at 0"),
        (ITSELF, "expected a block at byte 0, found it at"),
        (finished(b"x" + GOOD + EMPTY, place(AFTER + 1, EMPTY), block(records([(b"b", place(1, GOOD))]))),
         "expected a block at byte 0, found it at 1"),
        (finished(GOOD + EMPTY + b"x", place(AFTER, EMPTY), block(records([(b"b", place(0, GOOD))]))),
         "expected a block at byte"),
        (table(GOOD)[:-FOOTER] + b"x" + table(GOOD)[-FOOTER:], "expected the footer at byte"),
        (table(block(records([(b"", HEADER)]), compression=1)), "not compressed, found compression 1: save it again"),
        (table(GOOD, empty=EMPTY[:-1] + b"x"), "expected a block with checksum"),
        (table(b"x" + GOOD[1:]), "expected a block with checksum"),
        # records
        (table(block(b"", b"")), "expected the numbers of records, found a block of 0 bytes"),
        (table(block(b"", b"\1\0\0")), "expected the numbers of records, found a block of 3 bytes"),
        (table(block(b"", b"\1\0\0\0")), "expected the numbers of records, found a block of 4 bytes"),
        (table(block(b"", b"\xff\xff\xff\xff")), "expected the numbers of records"),
        (table(block(record(1, b"", HEADER))), "expected a record, found one that shares 1 bytes"),
        (table(block(record(0, b"", HEADER) + record(0, b"a", entry()) + record(2, b"", b""))), "shares 2 bytes"),
        (table(GOOD, block(record(1, b"b", entry()))), "shares 1 bytes"),  # nothing is shared between blocks
        (table(block(record(0, b"", HEADER)[:-1])), "expected a record"),
        (table(block(b"\0")), "expected a number, found the end at byte 1"),
        (table(block(b"\0\0\xff")), "expected a number, found ff at byte 2"),
        (table(block(b"\0\0" + varint(1 << 63))), "expected a record"),
        (pairs_of(b"x" * (LONGEST_NAME + 1)), f"then has {LONGEST_NAME + 1}"),
        (pairs_of(b"x" * LONGEST_NAME, b"x" * LONGEST_NAME + b"y"), f"shares {LONGEST_NAME} bytes, then has 1"),
        # numbers
        (table(block(b"\x80\0\0\0")), "expected a number, found 80000000 at byte 0"),
        (table(block(b"\xff" * 9 + b"\x02\0\0")), "expected a number, found ffffffffffffffffff02 at byte 0"),
        (table(block(b"\x80" * 10 + b"\1\0\0")), "expected a number, found 80808080808080808080 at byte 0"),
        # names
        (table(), "expected an entry for the file, found none"),
        (table(block(records([(b"a", entry())]))), "expected an entry for the file, found none"),
        (pairs_of(b"b", b"a"), "expected names in order, found 'a' after 'b'"),
        (pairs_of(b"a", b"a"), "expected names in order, found 'a' after 'a'"),
        (pairs_of(b""), "expected names in order, found '' after ''"),
        (pairs_of(b"\xff"), r"expected names in UTF-8, found '\\xff'"),
        (pairs_of(b"\0\x01a"), r"expected whole variables, found a piece of a partitioned one, '\x00\x01a'"),
    ],
)  # fmt: skip
def test_tables_that_are_wrong(written, index, expected):
    assert expected in refused(written, index)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"", "expected a checkpoint with one file of data, found 0"),
        (number(1, 2), "expected a checkpoint with one file of data, found 2: save it again"),
        (number(1, (1 << 64) - 1), "one file of data, found 18446744073709551615"),
        (number(1, 1) + number(2, 1), "found a big-endian one's: save it again"),
        (HEADER + message(3, number(2, 2)), "expected a checkpoint for readers of version 1, found 2"),
        (HEADER + b"\x0b", "expected a field of a message, found one of kind 3 at byte"),
        (HEADER + b"\x0f", "expected a field of a message, found one of kind 7 at byte"),
        (HEADER + b"\x45\0\0\0", "bytes in a message, found"),
        (HEADER + b"\x41" + bytes(7), "bytes in a message, found"),
        (HEADER + b"\x42\x01", "bytes in a message, found"),
        (HEADER + b"\x42" + varint(1 << 62), "bytes in a message, found"),
        (HEADER + b"\x40", "expected a number, found the end"),
    ],
)
def test_headers_that_are_wrong(written, header, expected):
    assert expected in refused(written, table(block(records([(b"", header)]))))


@pytest.mark.parametrize(
    "header",
    [
        HEADER[2:] + HEADER[:2],
        number(1, 2) + HEADER,  # the last one counts
        HEADER + message(3, number(2, 1)),
        HEADER + number(9, 1) + message(10, b"x") + b"\x45abcd" + b"\x41abcdefgh",  # what a later version may add
    ],
)
def test_headers_that_are_right(written, header):
    assert read_index(written(table(block(records([(b"", header)])))).with_suffix(".index")) == {}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (entry(size=4), "expected 4 bytes a number in 'a', found 4 for shape (2,)"),
        (entry(shape=(2, 1 << 63)), "expected 4 bytes a number in 'a', found 8 for shape"),
        (entry(shape=((1 << 64) - 1,), size=(1 << 64) - 4), "expected 4 bytes a number in 'a'"),
        (entry(shape=[1] * 33, size=4), "expected at most 32 dimensions, found 'a' with more"),
        (entry(more=message(2, number(3, 1))), "expected at most 32 dimensions, found 'a' with more"),
        (entry(shard=1), "expected 'a' in the only file of data, found it in another"),
        (entry(more=message(7, b"")), "expected 'a' in one piece, found a partitioned variable: save it again"),
        (number(1, 1), "expected 4 bytes a number in 'a', found 0 for shape ()"),
    ],
)
def test_entries_that_are_wrong(written, value, expected):
    assert expected in refused(written, index_of(a=value))


def test_other_types_are_listed(written):
    values = {"a": entry(dtype=3, size=7), "b": entry(dtype=101, offset=8), "c": entry(dtype=0, offset=16)}
    with Bundle(written(index_of(**values))) as bundle:
        assert [found.dtype for found in bundle.entries.values()] == ["int32", "type 101", "type 0"]
        with pytest.raises(UserError, match=f"m{DATA}: expected b in float32, found type 101: save it again"):
            bundle.read("b")


def test_the_most_dimensions(written):
    [value] = read_index(written(index_of(a=entry([1] * 32, 0, 4))).with_suffix(".index")).values()
    assert value.shape == (1,) * 32


@pytest.mark.parametrize("offset", [1, 64, 1 << 40, (1 << 64) - 8])
def test_tensors_beyond_the_data(written, offset):
    with pytest.raises(UserError, match=f"m{DATA}: expected {offset + 64} bytes, found 64: it is damaged"):
        Bundle(written(index_of(a=entry((16,), offset, 64))))


def test_tensors_that_overlap(written):
    for first, second in ((0, 4), (4, 0), (0, 0), (1, 0)):
        index = index_of(a=entry(offset=first), b=entry(offset=second))
        assert "expected each byte in one tensor, found '" in refused(written, index)
    index = index_of(a=entry((9,), 0, 36), b=entry(offset=4), c=entry(offset=20))
    assert "found 'a' and 'b' at byte 4" in refused(written, index)
    read_index(written(index_of(a=entry(), b=entry(offset=8), c=entry((0,), 4, 0))).with_suffix(".index"))


def test_a_small_file_takes_little_memory(written):
    """Names that share most of their bytes, sizes beyond all bounds: what is made is bounded by the file."""
    names = [b"x" * (LONGEST_NAME - 3) + str(i).encode() for i in range(100, 1000)]
    index = pairs_of(*names)
    assert len(index) < 40_000
    tracemalloc.start()
    read_index(written(index).with_suffix(".index"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 << 20


# anything


def outcome(written, index: bytes) -> None:
    """Whatever the file holds: entries that can be read or refused, or one line."""
    prefix = written(index)
    try:
        bundle = Bundle(prefix)
    except UserError as error:
        assert str(error).startswith(str(prefix)) and "\n" not in str(error)
        return
    with bundle:
        for name, found in bundle.entries.items():
            assert 0 <= found.offset <= found.offset + found.size <= 64
            try:
                assert bundle.read(name).nbytes == found.size
            except UserError as error:
                assert str(error).startswith(str(prefix)) and "\n" not in str(error)


@given(st.binary(max_size=200))
def test_any_bytes(write, data):
    outcome(write, data)


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """As `written`, for tests that hypothesis runs many times."""
    return writer_at(tmp_path_factory.mktemp("any"))


@st.composite
def mutated(draw, data: bytes) -> bytes:
    """Some bytes with a few of them changed, left out, or put in."""
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, min(start + 4, len(data))))
        data = data[:start] + draw(st.binary(max_size=4)) + data[stop:]
    return data


FIRST = (FROZEN / "tf2-objects.index").read_bytes().partition(bytes(4) + b"\1\0\0\0")[0]  # records of the first block


@given(mutated(FIRST), st.one_of(st.just(bytes(4) + b"\1\0\0\0"), st.binary(max_size=8)))
def test_any_records(write, data, restarts):
    """With right checksums, so that what lies beyond them is reached."""
    outcome(write, table(block(data, restarts)))


@given(mutated(HEADER), mutated(entry()), mutated(entry(offset=8)), st.binary(max_size=20))
def test_any_messages(write, header, first, second, name):
    pairs = [(b"", header), (b"a", first), (b"a" + name, second)]
    outcome(write, table(block(records(pairs))))


@given(mutated(place(0, GOOD)), mutated(place(AFTER, EMPTY)), mutated(table(GOOD)[AFTER + len(EMPTY) :][: -FOOTER - 5]))
def test_any_places(write, first, empty, index):
    outcome(write, finished(GOOD + EMPTY, empty, block(records([(b"b", first)]))))
    outcome(write, finished(GOOD + EMPTY, place(AFTER, EMPTY), block(index, b"")))
