"""Products of a few rows, in pieces and on all cores, are those of plain NumPy."""

import numpy as np
import pytest

from picogpt import matmul as module
from picogpt.matmul import FEW_ROWS, matmul


def random_array(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("cores", [1, 2, 3])
@pytest.mark.parametrize("n_rows", [1, *FEW_ROWS[:3], 8, FEW_ROWS[-1], FEW_ROWS[-1] + 1])
@pytest.mark.parametrize(("n_in", "n_out"), [(768, 768), (300, 1999), (1024, 513), (16, 40_007), (6400, 102)])
def test_every_shape_is_as_numpy_has_it(monkeypatch, cores, n_rows, n_in, n_out):
    monkeypatch.setattr(module, "n_cores", lambda: cores)
    x, w = random_array(n_rows, n_in), np.asfortranarray(random_array(n_in, n_out, seed=1))
    product = matmul(x, w)
    assert (product.dtype, product.shape) == (np.float32, (n_rows, n_out))
    assert product.flags.c_contiguous
    np.testing.assert_allclose(product, x @ w, rtol=1e-4, atol=1e-4)


def test_every_piece_is_computed_once(monkeypatch):
    """Each column of w marks itself: a gap or an overlap between the cores' shares would show."""
    monkeypatch.setattr(module, "n_cores", lambda: 3)
    w = np.asfortranarray(np.repeat(np.arange(5003, dtype=np.float32)[None], 256, axis=0))
    x = np.zeros((5, 256), np.float32)
    x[:, 0] = 1
    np.testing.assert_array_equal(matmul(x, w), np.repeat(np.arange(5003, dtype=np.float32)[None], 5, axis=0))


def test_the_head_and_matrices_of_any_order_are_taken():
    x = random_array(4, 768)
    for w in (random_array(5000, 768).T, random_array(768, 5000), random_array(768, 10_000)[:, ::2]):
        np.testing.assert_allclose(matmul(x, w), x @ w, rtol=1e-4, atol=1e-4)


def test_strided_rows_are_taken():
    x, w = random_array(3, 8, 768)[:, 2], np.asfortranarray(random_array(768, 1000))
    np.testing.assert_allclose(matmul(x, w), x @ w, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cores", [1, 2, 3])
@pytest.mark.parametrize("n_rows", [1, 2, 7, 32, 33])
@pytest.mark.parametrize("n_keys", [1, 37, 151, 1000])
def test_a_batch_of_heads_is_as_numpy_has_it(monkeypatch, cores, n_rows, n_keys):
    """The keys are a part of a longer cache, so a head does not begin where the one before it ends."""
    monkeypatch.setattr(module, "n_cores", lambda: cores)
    q, cache = random_array(2, 12, n_rows, 64), random_array(2, 12, 1024, 64, seed=1)
    keys = cache[..., :n_keys, :].swapaxes(-1, -2)
    np.testing.assert_allclose(matmul(q, keys), q @ keys, rtol=1e-4, atol=1e-4)
