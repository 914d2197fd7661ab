"""Which parameters of a test the fast part takes."""

import pytest


def fast(values, *few):
    """`values` as parameters: those in `few` run always, the others in the slow part."""
    assert set(few) < set(values)
    return [
        value if value in few else pytest.param(value, marks=pytest.mark.slow) for value in values
    ]
