"""A long prompt on several cores: the same as in one piece, and nothing waits for ever."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from threading import Thread

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import picogpt
from picogpt import cores, gpt2
from picogpt.weights.store import nested, random_tensors
from tests.helpers import ROOT

HPARAMS = {"n_vocab": 500, "n_ctx": 700, "n_embd": 24, "n_head": 3, "n_layer": 3}
PARAMS = nested(dict(random_tensors(HPARAMS, seed=0, std=0.2)))


@pytest.fixture(params=[2, 3, 5])
def n_cores(request, monkeypatch):
    monkeypatch.setattr(cores, "n_cores", lambda: request.param)
    return request.param


def ids(n, seed=0):
    return np.random.default_rng(seed).integers(0, HPARAMS["n_vocab"], n)


def blas_threads():
    """The threads of the library that NumPy brings; other packages may have loaded more."""
    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return [library["num_threads"] for library in found if "numpy" in library["filepath"] or len(found) == 1]


def prefill(n_new, n_past=0, n_last=1):
    """Logits and cache after n_past positions and n_new more."""
    cache = gpt2.new_cache(PARAMS, HPARAMS["n_head"], n_past + n_new)
    if n_past:
        gpt2.next_logits(ids(n_past, seed=1), PARAMS, HPARAMS["n_head"], cache)
    return gpt2.next_logits(ids(n_new), PARAMS, HPARAMS["n_head"], cache, n_last), cache


@pytest.mark.parametrize(
    ("n_new", "n_past", "n_last"), [(256, 0, 1), (257, 0, 3), (600, 0, 1), (300, 100, 1), (260, 1, 7)]
)
def test_pieces_of_a_prompt_give_what_the_whole_gives(n_cores, monkeypatch, n_new, n_past, n_last):
    at, cache = prefill(n_new, n_past, n_last)
    monkeypatch.setattr(cores, "LONG", 10**9)
    expected_at, expected = prefill(n_new, n_past, n_last)
    np.testing.assert_allclose(at, expected_at, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(cache.array, expected.array, rtol=1e-4, atol=1e-4)
    assert cache.length == expected.length == n_past + n_new


def test_a_long_prompt_is_cut_and_a_short_one_is_not(n_cores, monkeypatch):
    seen = []
    whole = gpt2.hidden_states
    monkeypatch.setattr(
        gpt2, "hidden_states", lambda new, **keywords: (seen.append(len(new)), whole(new, **keywords))[1]
    )
    prefill(255)
    assert seen == [255]
    seen.clear()
    prefill(640)
    assert len(seen) == n_cores
    assert sum(seen) == 640


def test_pieces_are_as_even_as_their_work(n_cores):
    cache = gpt2.new_cache(PARAMS, 3, 700)
    cuts = cores.cuts(700, cache, n_cores)
    assert (cuts[0], cuts[-1], len(cuts)) == (0, 700, n_cores + 1)
    lengths = np.diff(cuts)
    assert (np.diff(lengths) < 0).all()  # later ones see more keys
    work = [sum(3 * 24 + at for at in range(start, end)) for start, end in pairwise(cuts)]
    assert max(work) < 1.02 * min(work)


def test_rows_and_one_core_are_left_alone(monkeypatch):
    monkeypatch.setattr(cores, "in_threads", lambda calls: pytest.fail("shared"))
    monkeypatch.setattr(cores, "n_cores", lambda: 2)
    cache = gpt2.new_cache(PARAMS, 3, 300, n_rows=2)
    gpt2.next_logits(np.stack([ids(300), ids(300)]), PARAMS, 3, cache)
    monkeypatch.setattr(cores, "n_cores", lambda: 1)
    prefill(300)


@pytest.mark.parametrize(("n_embd", "expected"), [(24, {1}), (390, None)])
def test_rows_of_a_small_model_use_one_blas_thread(n_embd, expected):
    cache, seen = gpt2.KVCache(1, 3, n_embd // 3, 8, n_rows=2), []
    cores.share(lambda new, kv_cache: seen.append(blas_threads()), np.zeros((2, 1), int), cache)
    assert set(seen[0]) == (expected or set(blas_threads()))


def test_blas_gets_its_threads_back(n_cores):
    before = blas_threads()
    prefill(300)
    assert blas_threads() == before
    with cores.blas_threads(1), cores.blas_threads(2):
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_prompts_in_several_threads_at_once(n_cores):
    before, (expected, _) = blas_threads(), prefill(400)
    with ThreadPoolExecutor(6) as several:
        for at, _ in several.map(lambda _: prefill(400), range(12), timeout=120):
            np.testing.assert_allclose(at, expected, rtol=1e-4, atol=1e-4)
    assert blas_threads() == before


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_an_error_in_any_piece_is_raised_and_none_waits_for_ever(monkeypatch, bad):
    monkeypatch.setattr(cores, "n_cores", lambda: 3)
    whole, before = gpt2.hidden_states, blas_threads()

    def fail_in_one(new, *, kv_cache, **keywords):
        if kv_cache.before is [None, *pieces][bad]:
            raise MemoryError
        return whole(new, kv_cache=kv_cache, **keywords)

    pieces = []
    make = cores.Piece.__init__
    monkeypatch.setattr(cores.Piece, "__init__", lambda piece, *args: (pieces.append(piece), make(piece, *args))[1])
    monkeypatch.setattr(gpt2, "hidden_states", fail_in_one)
    with pytest.raises(MemoryError):
        prefill(600)
    assert blas_threads() == before


def test_where_the_system_gives_no_threads(n_cores, monkeypatch):
    class Full(Thread):
        def start(self):
            raise RuntimeError("can't start new thread")

    expected, _ = prefill(400)
    monkeypatch.setattr(cores, "Thread", Full)
    np.testing.assert_allclose(prefill(400)[0], expected, rtol=1e-4, atol=1e-4)


def test_too_many_positions_are_refused(n_cores):
    cache = gpt2.new_cache(PARAMS, 3, 1000)
    with pytest.raises(picogpt.UserError, match="the model sees 700 positions, found 701"):
        gpt2.next_logits(ids(701), PARAMS, 3, cache)


@pytest.mark.parametrize("n_calls", [0, 1, 2, 7])
def test_each_call_is_done_once_and_in_its_place(n_cores, n_calls):
    done = []

    def call(number):
        done.append(number)
        return np.array(number)

    assert [int(found) for found in cores.each([partial(call, number) for number in range(n_calls)])] == [
        *range(n_calls)
    ]
    assert sorted(done) == [*range(n_calls)]


def test_an_error_in_one_of_several_calls_is_raised(n_cores):
    def fail():
        raise MemoryError

    for number in range(5):
        with pytest.raises(MemoryError):
            cores.each([fail if i == number else partial(prefill, 3) for i in range(5)])


PROGRAM = """
import atexit, os, sys
from picogpt import cores
cores.n_cores = lambda: 3
from tests.test_cores import prefill
expected = prefill(400)[0]

def is_right():
    return bool(abs(prefill(400)[0] - expected).max() < 1e-3)
"""


def run_python(program):
    command = [sys.executable, "-c", PROGRAM + program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_a_forked_child_reads_a_long_prompt():
    program = """
child = os.fork()
if child == 0:
    os._exit(0 if is_right() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), is_right())
"""
    assert run_python(program) == ["0", "True"]


def test_a_long_prompt_while_the_interpreter_shuts_down():
    assert run_python("atexit.register(lambda: print(is_right(), flush=True))") == ["True"]
