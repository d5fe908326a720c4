"""Files in the format safetensors: against Hugging Face's library, and with malformed headers."""

import json
import os
import tracemalloc
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from picogpt.errors import UserError
from picogpt.weights.tensorfile import LARGEST_HEADER, Entry, TensorFile, save

A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
B = {"dtype": "F16", "shape": [2, 1], "data_offsets": [8, 12]}


def file_of(header, data: bytes = b"", n_bytes: int | None = None) -> bytes:
    """The bytes of a file: a header, given as text, bytes or values, and the data."""
    text = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    return (len(text) if n_bytes is None else n_bytes).to_bytes(8, "little") + text + data


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    path = tmp_path_factory.mktemp("tensors") / "m.safetensors"

    def write(data: bytes) -> Path:
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        return path

    return write


def read_all(path: Path) -> dict[str, np.ndarray]:
    with TensorFile(path) as file:
        return {name: file.read(name) for name in file.entries}


# reading


def test_an_example(write):
    data = np.array([1, -2], "<f4").tobytes() + np.array([0.5, 65504], "<f2").tobytes()
    with TensorFile(write(file_of({"__metadata__": {"format": "pt"}, "a": A, "b": B}, data))) as file:
        assert file.entries == {"a": Entry("F32", (2,), 0, 8), "b": Entry("F16", (2, 1), 8, 12)}
        assert file.metadata == {"format": "pt"}
        np.testing.assert_array_equal(file.read("a"), np.float32([1, -2]), strict=True)
        np.testing.assert_array_equal(file.read("b"), np.float32([[0.5], [65504]]), strict=True)


def test_no_metadata(write):
    with TensorFile(write(file_of({"a": {**A, "more": "what a later version may add"}}, bytes(8)))) as file:
        assert file.metadata == {}


@pytest.mark.parametrize("header", ["{}", "{}  ", '{"__metadata__": {}}'])
def test_no_tensors(write, header):
    assert read_all(write(file_of(header))) == {}


def test_every_bfloat16(write):
    """bfloat16 is the upper half of float32: every one of them, by what the format says of its bits."""
    bits = np.arange(1 << 16, dtype="<u2")
    header = {"a": {"dtype": "BF16", "shape": [256, 256], "data_offsets": [0, 1 << 17]}}
    [found] = read_all(write(file_of(header, bits.tobytes()))).values()
    assert found.dtype == np.float32
    assert found.shape == (256, 256)
    sign, exponent, fraction = bits >> 15, (bits >> 7 & 0xFF).astype(int), bits & 0x7F
    with np.errstate(over="ignore"):
        value = np.where(exponent > 0, 1 + fraction / 128, fraction / 64) * 2.0 ** (exponent - 127)
    value = np.where(exponent < 255, value, np.where(fraction, np.nan, np.inf)) * np.where(sign, -1.0, 1)
    np.testing.assert_array_equal(found.ravel(), value.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(found.ravel()), sign)


def test_every_float16(write):
    bits = np.arange(1 << 16, dtype="<u2")
    header = {"a": {"dtype": "F16", "shape": [1 << 16], "data_offsets": [0, 1 << 17]}}
    [found] = read_all(write(file_of(header, bits.tobytes()))).values()
    np.testing.assert_array_equal(found, bits.view("<f2").astype(np.float32), strict=True)


def test_tensors_at_odd_bytes(write):
    """The format does not say that a header ends at a multiple of four, nor does a tensor of one byte a number."""
    header = {
        "mask": {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]},
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [3, 11]},
        "b": {"dtype": "BF16", "shape": [1], "data_offsets": [11, 13]},
    }
    data = bytes(3) + np.float32([3, 4]).tobytes() + b"\x80\x3f"
    for spaces in range(4):
        with TensorFile(write(file_of(json.dumps(header) + " " * spaces, data))) as file:
            assert file.read("a").tolist() == [3, 4]
            assert file.read("b").tolist() == [1]


def test_views_that_stay_when_the_file_is_closed(write):
    n = 1 << 20
    path = write(
        file_of({"a": {"dtype": "F32", "shape": [n], "data_offsets": [0, 4 * n]}}, np.arange(n, dtype="<f4").tobytes())
    )
    tracemalloc.start()
    [found] = read_all(path).values()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    np.testing.assert_array_equal(found, np.arange(n, dtype=np.float32), strict=True)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


@pytest.mark.parametrize(
    ("dtype", "size"), [("I64", 8), ("F64", 8), ("U8", 1), ("BOOL", 1), ("I32", 4), ("F8_E5M2", 1)]
)
def test_other_numbers_are_listed_and_not_read(write, dtype, size):
    header = {"mask": {"dtype": dtype, "shape": [3], "data_offsets": [0, 3 * size]}}
    with TensorFile(write(file_of(header, bytes(3 * size)))) as file:
        assert file.entries["mask"].shape == (3,)
        with pytest.raises(UserError, match=f"m.safetensors: expected mask in F32, F16, BF16, found {dtype}: save it"):
            file.read("mask")


def test_files_are_closed(write):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in (bytes(7), bytes(8)):
            with suppress(UserError), TensorFile(write(file_of({"a": A}, data))) as file:
                file.read("a")
        del file
    assert not caught


# wrong files


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        TensorFile(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert "expected " in message
    assert len(message) < 1000
    return message


def test_paths_that_are_not_files(tmp_path):
    assert "found none" in refused(tmp_path / "a")
    os.mkfifo(tmp_path / "b")
    assert "found a directory, a pipe or a device" in refused(tmp_path / "b")
    assert "found a directory, a pipe or a device" in refused(tmp_path)


def test_every_truncation(write):
    whole = file_of({"__metadata__": {"a": "b"}, "a": A, "b": B}, bytes(12))
    for n in range(len(whole)):
        assert "it is damaged: delete " in refused(write(whole[:n]))
    read_all(write(whole))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "found one of 0 bytes in a file of 0"),
        (bytes(7), "found one of 0 bytes in a file of 7"),
        (bytes(8), "header: expected JSON, found"),
        (file_of("{}", n_bytes=3), "found one of 3 bytes in a file of 10"),
        (file_of("{}", n_bytes=1 << 63), "found one of 9223372036854775808 bytes in a file of 10"),
        (file_of("{}".ljust(LARGEST_HEADER + 1)), "expected a header of at most 4.19 MB, found one of 4194305 bytes"),
        (file_of(b'{"\xff": 1}'), "expected a header in UTF-8, found invalid start byte at byte 2"),
        (file_of("[]"), "header: expected a JSON object, found []"),
        (file_of("[" * 100_000), "header: expected JSON, found brackets nested too deeply"),
        (file_of('{"a": ' + "9" * 5000 + "}"), "header: expected JSON, found a number of thousands of digits"),
        (file_of('{"a": 1, "a": 2}'), "header: expected each key once, found 'a' twice"),
        (file_of('{"a": {"dtype": "F32", "dtype": "F32"}}'), "header: expected each key once, found 'dtype' twice"),
        (file_of('{"a": NaN}'), "expected dtype, shape and data_offsets of 'a', found nan"),
        (file_of({"__metadata__": []}), "expected texts as __metadata__, found []"),
        (file_of({"__metadata__": "x"}), "expected texts as __metadata__, found 'x'"),
        (file_of({"__metadata__": None}), "expected texts as __metadata__, found None"),
        (file_of({"__metadata__": {"a": 1}}), "expected texts as __metadata__, found {'a': 1}"),
        (file_of({"__metadata__": {"a": {}}}), "expected texts as __metadata__, found {'a': {}}"),
        # the places of tensors
        (file_of({"a": A}, bytes(7)), "expected 8 bytes of data, found 7"),
        (file_of({"a": A}, bytes(9)), "expected 8 bytes of data, found 9"),
        (file_of({}, b"x"), "expected 0 bytes of data, found 1"),
        (file_of({"a": A, "b": {**B, "data_offsets": [9, 13]}}, bytes(13)),
         "expected 'b' at byte 8 of the data, found 9"),
        (file_of({"a": A, "b": {**B, "data_offsets": [7, 11]}}, bytes(11)),
         "expected 'b' at byte 8 of the data, found 7"),
        (file_of({"a": A, "b": A}, bytes(8)), "expected 'b' at byte 8 of the data, found 0"),
        (file_of({"a": {**A, "data_offsets": [1, 9]}}, bytes(9)), "expected 'a' at byte 0 of the data, found 1"),
        (file_of({"a": {**A, "data_offsets": [1 << 64, (1 << 64) + 8]}}),
         "expected 'a' at byte 0 of the data, found 184"),
    ],
)  # fmt: skip
def test_files_that_are_wrong(write, data, expected):
    message = refused(write(data))
    assert expected in message
    assert message.endswith(", and run again or put a good one there")


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "x",
        "dtype",
        [],
        {},
        *({key: A[key] for key in A if key != left_out} for left_out in A),
        *({**A, "dtype": dtype} for dtype in ("f32", "F31", "", "F4", None, 1, [], {}, ["F32"])),
        *({**A, "shape": shape} for shape in (2, None, "2", [2.0], ["2"], [True, 2], [-2], [[2]], [None], {"2": 2})),
        {**A, "shape": [2] + [1] * 32},
        *({**A, "data_offsets": offsets} for offsets in (8, None, "08", [], [0], [0, 8, 9], [0, 8.0], [False, 8])),
        *({**A, "data_offsets": offsets} for offsets in (["0", "8"], [None, 8], [-8, 0], {"0": 0, "8": 8})),
    ],
    ids=repr,
)
def test_entries_that_are_wrong(write, value):
    message = refused(write(file_of({"a": value}, bytes(8))))
    assert "expected dtype, shape and data_offsets of 'a', found" in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"shape": []}, "expected 'a' () in F32, found bytes 0 to 8"),
        ({"shape": [3]}, "expected 'a' (3,) in F32, found bytes 0 to 8"),
        ({"dtype": "F16"}, "expected 'a' (2,) in F16, found bytes 0 to 8"),
        ({"data_offsets": [8, 0]}, "expected 'a' (2,) in F32, found bytes 8 to 0"),
        ({"shape": [1 << 62, 4, 1 << 62, 2]}, "in F32, found bytes 0 to 8"),
        ({"shape": [10**4000] * 32}, "in F32, found bytes 0 to 8"),
    ],
)
def test_sizes_that_do_not_fit(write, change, expected):
    assert expected in refused(write(file_of({"a": {**A, **change}}, bytes(8))))


def test_the_most_dimensions(write):
    [found] = read_all(write(file_of({"a": {**A, "shape": [1] * 31 + [2]}}, bytes(8)))).values()
    assert found.shape == (1,) * 31 + (2,)


def test_a_small_file_takes_little_memory(write):
    path = write(file_of({"a": {**A, "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}))
    tracemalloc.start()
    refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


# writing

arrays = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda name: name != "__metadata__")
texts = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), st.text('aé\n"', max_size=4))


@given(st.dictionaries(names, arrays, max_size=4))
@example({"é": np.ones(1, np.float32), '"\\\n\x7f': np.ones((2, 0), np.float32)})
def test_writes_the_bytes_of_the_library_and_reads_them_again(write, tensors):
    library = pytest.importorskip("safetensors.numpy")
    path = write(b"")
    for metadata in (None, {"format": "pt"}):
        save(path, tensors, metadata)
        assert path.read_bytes() == library.save(tensors, metadata)
        found = read_all(path)
        assert found.keys() == tensors.keys()
        for name, array in tensors.items():
            np.testing.assert_array_equal(found[name], array, strict=True)


@given(texts)
def test_metadata(write, texts):
    path = write(b"")
    save(path, {}, texts)
    with TensorFile(path) as file:
        assert file.metadata == texts


def test_writes_float32_whatever_the_order(tmp_path):
    array = np.arange(12.0).reshape(3, 4)
    given = {"b": array.T, "c": np.asfortranarray(array, np.float32), "a": array[::2, ::-1], "d": array.astype(">f4")}
    save(tmp_path / "m", given)
    found = read_all(tmp_path / "m")
    assert list(found) == ["a", "b", "c", "d"]
    for name, tensor in given.items():
        np.testing.assert_array_equal(found[name], tensor.astype(np.float32), strict=True)


def test_takes_a_copy_of_one_tensor_at_most(tmp_path):
    tensors = {name: np.asfortranarray(np.ones((512, 512), np.float32)) for name in "abcdefgh"}
    tracemalloc.start()
    save(tmp_path / "m", tensors)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * tensors["a"].nbytes


def test_writes_all_or_nothing(tmp_path, monkeypatch):
    save(tmp_path / "m", {"a": np.ones(2)})
    before = (tmp_path / "m").read_bytes()
    monkeypatch.setattr(np, "asarray", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match=f"cannot write to {tmp_path}: No space left on device"):
        save(tmp_path / "m", {"a": np.zeros(2)})
    assert (tmp_path / "m").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=f"cannot write to {tmp_path}/none: No such file or directory"):
        save(tmp_path / "none" / "m", {})


# anything, and what the library says of it


@st.composite
def headers(draw):
    """A right file with something in its header changed: a number, a name, a place; or a few of its bytes."""
    value, total = {}, 0
    for name in draw(st.lists(st.sampled_from(["a", "b", "é", "c.d"]), max_size=3, unique=True)):
        dtype, size = draw(st.sampled_from([("F32", 4), ("F16", 2), ("BF16", 2), ("I64", 8), ("U8", 1), ("X", 1)]))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        n_bytes = size * int(np.prod(shape))
        start = total + draw(st.sampled_from([0, 0, 0, 0, 0, 0, 1, -1]))
        value[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + n_bytes]}
        total += n_bytes
    if draw(st.booleans()):
        value["__metadata__"] = draw(st.sampled_from([{}, {"a": "b"}, {"a": 1}, [], None]))
    total = max(0, total + draw(st.sampled_from([0, 0, 0, 0, 1, -1])))
    text = json.dumps(value).encode()
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        start = draw(st.integers(0, len(text)))
        text = text[:start] + draw(st.binary(max_size=2)) + text[start + draw(st.integers(0, 2)) :]
    return file_of(text, draw(st.binary(min_size=total, max_size=total)))


@given(st.one_of(headers(), st.binary(max_size=60)))
@example(file_of({}))
@example(file_of('{"a": {"dtype": "F32", "shape": [1e0], "data_offsets": [0, 4]}}', bytes(4)))
@example(file_of(' {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', bytes(4)))
@example(file_of("\ufeff{}"))
def test_takes_what_the_library_takes_and_nothing_else(write, data):
    library = pytest.importorskip("safetensors")
    path, message = write(data), ""
    try:
        with TensorFile(path) as file:
            ours = {name: (entry.dtype, entry.shape) for name, entry in file.entries.items()}
            values = {name: file.read(name) for name, entry in file.entries.items() if entry.dtype in ("F32", "F16")}
    except UserError as error:
        message, ours, values = str(error), None, {}
        assert message.startswith(f"{path}: ") and "expected " in message and "\n" not in message
    try:
        with library.safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 it is no dict
            theirs = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
            for name, array in values.items():
                np.testing.assert_array_equal(array, file.get_tensor(name).astype(np.float32), strict=True)
    except library.SafetensorError:
        theirs = None
    if ours is None and theirs is not None:  # the library takes null as metadata, and the last of two equal keys there
        assert "texts as __metadata__, found None" in message or "each key once" in message
    elif b"-0" not in data and b"\\u" not in data:  # we take -0 and half of a surrogate pair
        assert ours == theirs
