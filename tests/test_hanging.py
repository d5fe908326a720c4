"""Nothing waits for ever, wherever a model runs: one core, threads, forks, dropped generators, programs that end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.helpers import ENVIRONMENT, ROOT

LIMIT = 300  # seconds; each program takes one or two, and thirty beside others that compute

# a model whose products are shared out: a long prompt, several rows, one row
PROGRAM = """
import atexit, gc, os, signal, sys, threading
import numpy as np
from threadpoolctl import threadpool_info
from picogpt import gpt2
from picogpt.weights.store import nested, random_tensors

hparams = {"n_vocab": 2000, "n_ctx": 320, "n_embd": 384, "n_head": 6, "n_layer": 2}
params = nested({name: np.asfortranarray(t) if name.endswith("/w") else t
                 for name, t in random_tensors(hparams, seed=0, std=0.2)})
prompt = np.random.default_rng(0).integers(0, 2000, 300).tolist()

def steps(nsamples=None, n=4):
    return gpt2.generate(prompt, params, 6, n, nsamples=nsamples)

def tokens():
    return [list(steps()), [list(map(int, ids)) for ids in steps(8)]]

def in_a_child(function):  # 0 is right; the signal that ends it where it hangs
    child = os.fork()
    if child == 0:
        signal.alarm(100)
        os._exit(0 if function() else 1)
    return os.waitpid(child, 0)[1]
"""


def run_python(program, setting=None, before=None):
    command = [sys.executable, "-c", PROGRAM + program]
    environment = ENVIRONMENT | (setting or {})
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=LIMIT, preexec_fn=before
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def blas_threads(n):
    return dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), n)


@pytest.fixture(scope="module")
def expected():
    """The tokens, as each program prints them."""
    [line] = run_python("print(tokens())")
    return line


@pytest.mark.parametrize("threads", ["1", "3"])
def test_any_number_of_blas_threads(expected, threads):
    assert run_python("print(tokens())", blas_threads(threads)) == [expected]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind a process to cores")
def test_a_process_that_may_use_one_core(expected):
    core = min(os.sched_getaffinity(0))
    assert run_python("print(tokens())", before=lambda: os.sched_setaffinity(0, {core})) == [expected]


def test_generators_that_are_dropped_midway(expected):
    program = """
info = threadpool_info()
print(tokens())
n_threads = threading.active_count()
for nsamples in (None, 8) * 2:
    begun = steps(nsamples)
    next(begun)
    del begun
    gc.collect()
print(tokens())
print(threading.active_count() <= n_threads, threadpool_info() == info)
left = steps(8), steps()  # and two that are midway when the program ends
print(*[len(list(zip(range(2), some))) for some in left])
"""
    assert run_python(program) == [expected, expected, "True True", "2 2"]


OPENBLAS = "OpenBLAS: a fork beside a product on several threads may hang, in NumPy alone too"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("threads", ["1", pytest.param("2", marks=pytest.mark.xfail(run=False, reason=OPENBLAS))])
def test_a_fork_while_another_thread_generates(expected, threads):
    program = """
right, ended = tokens(), threading.Event()

def generate():
    while not ended.is_set():
        assert tokens() == right

other = threading.Thread(target=generate)
other.start()
found = [in_a_child(lambda: tokens() == right) for _ in range(4)]
ended.set()
other.join()
print(found)
print(right)
"""
    assert run_python(program, blas_threads(threads)) == [str([0] * 4), expected]


@pytest.mark.parametrize("daemon", [True, False])
def test_a_program_that_ends_while_another_thread_generates(expected, daemon):
    program = f"""
begun = threading.Event()

def generate():
    for _ in steps(8, 8):
        begun.set()
    print(tokens(), flush=True)

threading.Thread(target=generate, daemon={daemon}).start()
begun.wait()
"""
    assert run_python(program) in ([[], [expected]] if daemon else [[expected]])


@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
def test_ctrl_c_in_the_middle_and_tokens_afterwards(expected):
    program = """
def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
for seconds in 0.01, 0.02, 0.03, 0.05, 0.08:
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        while True:
            tokens()
    except KeyboardInterrupt:
        pass
print(tokens())
"""
    assert run_python(program) == [expected]
