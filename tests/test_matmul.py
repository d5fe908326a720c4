"""Products of a few rows, in pieces and on all cores, are those of plain NumPy: in every process and every thread."""

import subprocess
import sys
import typing
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest

from picogpt import matmul as module
from picogpt.matmul import FEW_ROWS, gains_from_pieces, matmul
from tests.helpers import ROOT


@pytest.fixture(autouse=True, params=[True, False], ids=["AVX-512", "no AVX-512"])
def avx512(request, monkeypatch):
    monkeypatch.setattr(module, "has_avx512", lambda: request.param)
    return request.param


for_pieces = pytest.mark.parametrize("avx512", [True], indirect=True)


def random_array(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def fortran(*shape, seed=1):
    return np.asfortranarray(random_array(*shape, seed=seed))


def assert_same_product(x, w):
    """NumPy's values, in its type and shape, or NumPy's error."""
    ours, theirs = matmul(x, w), x @ w
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cores", [1, 2, 3])
@pytest.mark.parametrize("n_rows", [1, *FEW_ROWS[:3], 8, FEW_ROWS[-1], FEW_ROWS[-1] + 1, 16, 31])
@pytest.mark.parametrize(("n_in", "n_out"), [(768, 768), (300, 1999), (1024, 513), (16, 40_007), (6400, 102)])
def test_every_shape_gives_numpys_product(monkeypatch, cores, n_rows, n_in, n_out):
    monkeypatch.setattr(module, "n_cores", lambda: cores)
    x, w = random_array(n_rows, n_in), fortran(n_in, n_out)
    assert_same_product(x, w)
    assert matmul(x, w).flags.c_contiguous


def test_every_piece_is_computed_once(monkeypatch):
    """Each column of w marks itself: a gap or an overlap between the cores' shares would show."""
    monkeypatch.setattr(module, "n_cores", lambda: 3)
    w = np.asfortranarray(np.repeat(np.arange(5003, dtype=np.float32)[None], 256, axis=0))
    x = np.zeros((5, 256), np.float32)
    x[:, 0] = 1
    np.testing.assert_array_equal(matmul(x, w), np.repeat(np.arange(5003, dtype=np.float32)[None], 5, axis=0))


@for_pieces
@pytest.mark.parametrize("n_rows", [2, 12])
def test_pieces_are_small_and_shared_out_among_the_cores(monkeypatch, n_rows):
    """What makes it fast: no piece larger than BLAS's small kernels take, and an equal share for each core."""
    shares, in_pieces = [], module._in_pieces
    monkeypatch.setattr(module, "n_cores", lambda: 3)
    monkeypatch.setattr(
        module, "_in_pieces", lambda x, w, *rest: shares.append((w.shape, rest[0])) or in_pieces(x, w, *rest)
    )
    matmul(random_array(n_rows, 1024), fortran(1024, 3000))
    assert [n_in for (n_in, _), _ in shares] == [1024] * 3
    widths = {width for _, width in shares}
    assert len(widths) == 1
    (width,) = widths
    assert 4 <= width <= min(2**18 // (n_rows * 1024), 1200 // n_rows)
    columns = [n_out for (_, n_out), _ in shares]
    assert sum(columns) == 3000
    assert max(columns) - min(columns) < 3 * width

    for n_out, n_shares in ((8192, 3), (8191, 1)):  # below 2^19 elements it is too small to hand on
        shares.clear()
        matmul(random_array(n_rows, 64), fortran(64, n_out))
        assert len(shares) == n_shares


@pytest.mark.parametrize("avx512", [False], indirect=True)
def test_rows_are_single_or_filled_up_to_eights_without_avx512(monkeypatch):
    seen, plain = [], np.matmul
    monkeypatch.setattr(np, "matmul", lambda x, w, out: seen.append((x.shape[:-1], w.shape[1])) or plain(x, w, out=out))
    for n_rows, rows in ((2, (2, 1)), (4, (4, 1)), (5, (1, 8)), (8, (1, 8)), (9, (1, 16)), (64, (1, 64))):
        seen.clear()
        matmul(random_array(n_rows, 512), fortran(512, 5000))
        assert seen == [(rows, 2048), (rows, 2048), (rows, 904)]
    seen.clear()
    for n_rows, n_in, n_out in ((1, 64, 9000), (65, 64, 9000), (16, 512, 2048)):
        matmul(random_array(n_rows, n_in), fortran(n_in, n_out))
    assert not seen


@pytest.mark.parametrize(("n_rows", "wide"), [(2, [8192, 1808]), (4, [8192, 1808]), (5, [10_000]), (16, [])])
@pytest.mark.parametrize("avx512", [False], indirect=True)
def test_more_columns_at_a_time_where_rows_are_contiguous(monkeypatch, n_rows, wide):
    plain, seen = np.matmul, []
    monkeypatch.setattr(np, "matmul", lambda x, w, out: seen.append(w.shape[1]) or plain(x, w, out=out))
    x, w = random_array(n_rows, 512), random_array(512, 10_000)
    np.testing.assert_allclose(matmul(x, w), x @ w, rtol=1e-4, atol=1e-4)
    assert seen == wide


def test_pieces_of_a_large_matrix_are_for_avx512(avx512):
    x, w, small = random_array(8, 512), fortran(512, 2048), fortran(64, 128)
    assert gains_from_pieces(x, w) == avx512
    assert gains_from_pieces(random_array(8, 64), small)
    assert gains_from_pieces(random_array(12, 8, 64), random_array(12, 1000, 64).swapaxes(-1, -2))


def test_all_batch_axes_are_in_one_product(monkeypatch):
    x, w = random_array(3, 2, 1, 64), fortran(64, 10_000)
    assert_same_product(x, w)
    real, rows = module.matmul, []
    monkeypatch.setattr(module, "matmul", lambda x, w: rows.append(x.shape) or real(x, w))
    real(x, w)
    assert rows == [(6, 64)]


def test_the_head_and_matrices_of_any_order():
    x = random_array(4, 768)
    for w in (random_array(5000, 768).T, random_array(768, 5000), random_array(768, 10_000)[:, ::2]):
        assert_same_product(x, w)


def test_strided_rows():
    assert_same_product(random_array(3, 8, 768)[:, 2], fortran(768, 1000))


@pytest.mark.parametrize("cores", [1, 2, 3])
@pytest.mark.parametrize("n_rows", [1, 2, 7, 12, 13])
@pytest.mark.parametrize("n_keys", [1, 37, 151, 1000])
def test_a_batch_of_heads_gives_numpys_product(monkeypatch, cores, n_rows, n_keys):
    """The keys are a part of a longer cache, so a head does not begin where the one before it ends."""
    monkeypatch.setattr(module, "n_cores", lambda: cores)
    q, cache = random_array(2, 12, n_rows, 64), random_array(2, 12, 1024, 64, seed=1)
    assert_same_product(q, cache[..., :n_keys, :].swapaxes(-1, -2))


ROWS = [1, 2, 12, 13]


@pytest.mark.parametrize(
    "types", list(product(["f4", ">f4", "f8", "f2", "i8", "i1", "?", "c8"], repeat=2)), ids="-".join
)
def test_the_type_of_a_product_does_not_depend_on_its_rows(types):
    """float32 by float64 in Fortran order was float32 for a few rows, else float64."""
    of_x, of_w = types
    for n_rows in ROWS:
        x, w = np.ones((n_rows, 6), of_x), np.ones((6, 5), of_w, order="F")
        assert_same_product(x, w)


@pytest.mark.parametrize("n_rows", ROWS)
@pytest.mark.parametrize(
    ("of_x", "of_w"),
    [
        ((), ()),
        ((2,), ()),
        ((2, 3), (3,)),
        ((3,), (2, 3)),
        ((2, 1), (2, 3)),
        ((1,), (2,)),
        ((), (2,)),
        ((2, 3), (2, 3)),
    ],
)
def test_broadcasting_does_not_depend_on_the_rows(n_rows, of_x, of_w):
    w = random_array(*of_w, 5, 6, seed=1).swapaxes(-1, -2)
    assert_same_product(random_array(*of_x, n_rows, 6), w)


@pytest.mark.parametrize("n_rows", [0, *ROWS])
@pytest.mark.parametrize(("n_in", "n_out"), [(0, 5), (6, 0), (0, 0), (1, 1), (6, 1), (1, 5)])
def test_empty_and_thin_matrices(n_rows, n_in, n_out):
    assert_same_product(random_array(n_rows, n_in), fortran(n_in + 1, n_out + 1)[:n_in, :n_out])


def test_vectors():
    x, w = random_array(6), fortran(6, 5)
    assert_same_product(x, w)
    assert_same_product(x, x)
    assert_same_product(w.T, x)


@pytest.mark.parametrize("n_rows", ROWS)
def test_shapes_that_do_not_fit_are_refused_for_any_rows(n_rows):
    with pytest.raises(ValueError, match="matmul"):
        matmul(random_array(n_rows, 5), fortran(6, 5))


def test_pieces_are_for_a_few_rows_of_float32_and_matrices_in_fortran_order():
    x, w = random_array(8, 64), fortran(64, 100)
    assert gains_from_pieces(x, w)
    assert gains_from_pieces(x[:2], w)
    assert gains_from_pieces(x[:3].repeat(4, axis=0), w)
    assert gains_from_pieces(np.stack([x, x]), w)
    assert gains_from_pieces(np.stack([x, x]), np.stack([w.T, w.T]).swapaxes(-1, -2))
    for other, matrix in (
        (x[:1], w),
        (np.tile(x, (2, 1))[:13], w),
        (x, w.copy("C")),
        (x.astype("f8"), w.astype("f8", "F")),
    ):
        assert not gains_from_pieces(other, matrix)


# threads and processes


PRODUCT = """
import os, signal, sys
import numpy as np
from picogpt import matmul as module
module.n_cores = lambda: 3
module.has_avx512 = lambda: True
x, w = np.ones((8, 1024), np.float32), np.ones((1024, 2000), np.float32, order="F")

def is_right():
    return bool((module.matmul(x, w) == 1024).all())

def in_a_child(function):  # its exit status: 0 is right; the signal that ends it where it hangs
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if function() else 1)
    return os.waitpid(child, 0)[1]
"""


def run_python(program):
    command = [sys.executable, "-c", PRODUCT + program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


@needs_fork
def test_a_forked_child_computes_a_product():
    """The child has none of its parent's threads: it hung, waiting for them."""
    assert run_python("print(is_right(), in_a_child(is_right), is_right())") == ["True", "0", "True"]


@needs_fork
def test_children_of_children_compute_products():
    program = """
def family(generations):
    return is_right() and (generations == 0 or in_a_child(lambda: family(generations - 1)) == 0)

print(in_a_child(lambda: family(2)))
"""
    assert run_python(program) == ["0"]


def test_products_after_the_interpreter_has_begun_to_shut_down():
    """Then no thread can be started, nor any work given to one."""
    program = """
import atexit
atexit.register(lambda: print("second", is_right(), flush=True))
atexit.register(lambda: print("first", is_right(), flush=True))
if len(sys.argv) == 1:
    print("before", is_right(), flush=True)
"""
    assert run_python(program) == ["before", "True", "first", "True", "second", "True"]
    without_threads = program.replace("if len(sys.argv) == 1:", "if False:")
    assert run_python(without_threads) == ["first", "True", "second", "True"]


@for_pieces
def test_products_where_the_system_gives_no_threads(monkeypatch):
    """A piece that stays in the queue of a thread to come must not write into the result later on."""

    class Full:
        submitted: typing.ClassVar[list] = []

        def submit(self, *task):
            self.submitted.append(task)
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "n_cores", lambda: 3)
    monkeypatch.setattr(module, "_threads", Full)
    x, w = random_array(8, 1024), fortran(1024, 2000)
    y = matmul(x, w)
    np.testing.assert_allclose(y, x @ w, rtol=1e-4, atol=1e-4)
    y[:] = 0
    for function, *arguments in Full.submitted:
        function(*arguments)
    assert Full.submitted
    assert not y.any()


@for_pieces
def test_products_in_several_threads_at_once(monkeypatch):
    monkeypatch.setattr(module, "n_cores", lambda: 3)
    module._threads.cache_clear()  # so that all of them ask for the threads at once
    w = fortran(1024, 2000)
    xs = [random_array(8, 1024, seed=seed) for seed in range(24)]
    with ThreadPoolExecutor(8) as several:
        for x, y in zip(xs, several.map(lambda x: matmul(x, w), xs, timeout=60), strict=True):
            np.testing.assert_allclose(y, x @ w, rtol=1e-4, atol=1e-4)


@for_pieces
def test_an_error_in_another_thread_is_raised(monkeypatch):
    in_pieces = module._in_pieces

    def fail_in_the_last(x, w, width, out):
        if w[0, -1] == 7:
            raise MemoryError
        in_pieces(x, w, width, out)

    monkeypatch.setattr(module, "n_cores", lambda: 3)
    monkeypatch.setattr(module, "_in_pieces", fail_in_the_last)
    w = fortran(1024, 2000)
    w[0, -1] = 7
    with pytest.raises(MemoryError):
        matmul(random_array(8, 1024), w)


@for_pieces
def test_the_callers_errstate_holds_in_every_thread(monkeypatch):
    monkeypatch.setattr(module, "n_cores", lambda: 3)
    x, w = np.zeros((8, 1024), np.float32), fortran(1024, 2000)
    w[0, -1] = np.inf  # in the share of another thread: 0 * inf is invalid
    with np.errstate(invalid="ignore"):
        assert np.isnan(matmul(x, w)[:, -1]).all()
    with np.errstate(invalid="raise"), pytest.raises(FloatingPointError):
        matmul(x, w)


def test_types_can_be_read_at_run_time():
    for function in vars(module).values():
        if getattr(function, "__module__", None) == module.__name__:
            assert "return" in typing.get_type_hints(function)
