"""Which parameters of a test the fast part takes."""

import pytest


def fast(values, *few):
    """`values` as parameters: those in `few` run always, the others in the slow part."""
    assert all(value in values for value in few) and len(few) < len(values)
    return [value if value in few else _slow(value) for value in values]


def thinned(values, every):
    """`values` as parameters: one of each so many runs always, the others in the slow part."""
    values = list(values)
    assert 1 < every <= len(values)
    return [_slow(value) if k % every else value for k, value in enumerate(values)]


def _slow(value):
    return pytest.param(*(value if isinstance(value, tuple) else [value]), marks=pytest.mark.slow)
