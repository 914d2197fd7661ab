"""How many threads of BLAS a product of matrices has."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from perturb import MLP, InputError
from perturb.threads import WORTH_THREADS, blas_threads


def counts():
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers
    return [library.num_threads for library in libraries]


@pytest.fixture
def three():
    """The threads of each BLAS library outside, more than one of each that can have more."""
    with threadpool_limits(3, user_api="blas"):
        yield counts()


def test_a_small_product_has_one_thread_and_a_large_one_all(three):
    with blas_threads(WORTH_THREADS - 1):
        assert set(counts()) <= {1}
        with blas_threads(1):
            assert set(counts()) <= {1}
        assert set(counts()) <= {1}
    assert counts() == three
    with blas_threads(WORTH_THREADS):
        assert counts() == three


def test_an_error_within_leaves_as_many_threads_as_before(three):
    with pytest.raises(InputError), blas_threads(1):
        raise InputError("of what is within")
    assert counts() == three


def test_threads_of_a_process_that_are_within_at_once_leave_as_many_as_before(three):
    meeting = Barrier(2, timeout=60)

    def within(leaves_first):
        with blas_threads(1):
            meeting.wait()
            if not leaves_first:
                meeting.wait()
        if leaves_first:
            meeting.wait()

    for _ in range(20):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(within, (True, False)))
        assert counts() == three
    # nor does a thread that has gone hold the limit
    with threadpool_limits(2, user_api="blas"):
        assert set(counts()) <= {1, 2}
    assert counts() == three


@pytest.mark.parametrize("of", ["gradient", "hvp", "error_gradient_hvp", "outputs", "errors_at"])
def test_passes_of_a_small_network_have_one_thread(monkeypatch, three, of):
    seen, tanh = [], np.tanh
    objective = MLP([3, 4, 2]).objective(np.ones((5, 3)), np.ones((5, 2)))

    def watched(x):
        seen.append(set(counts()))
        return tanh(x)

    objective._f[0] = objective._f[0]._replace(f=watched, both=None)
    w = np.ones(objective.n_weights)
    if of == "errors_at":
        objective.errors_at(w[None])
    else:
        getattr(objective, of)(*(w, w)[: 1 + of.endswith("hvp")])
    assert seen and all(found <= {1} for found in seen)
    assert counts() == three
