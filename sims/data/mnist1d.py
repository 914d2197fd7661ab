"""MNIST-1D: ten short curves, one for each digit, moved, distorted and noisy (Greydanus and Kobak
2024, "Scaling down deep learning"; data from its formulas, with random numbers of this program).
"""

import numpy as np

Array = np.ndarray

# heights of the curve of each digit, at places that are evenly spaced
TEMPLATES = np.array(
    # fmt: off
    [
        [5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5],
        [5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5],
        [5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5],
        [5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5],
        [5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5],
        [5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5],
        [5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5],
        [5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5],
    ]
    # fmt: on
)
DIGITS, POINTS = TEMPLATES.shape
HEIGHT = 1 / 6  # standard deviation of a template
PADDING = range(36, 61)  # zeros after a template, one of these numbers of them
LENGTH = POINTS + PADDING[-1]  # of a signal while it is made
SCALE = 0.4  # width of the range of scale factors about 1
MOST_MOVED = 48  # places: fewer than these
CORRELATED = 0.25  # standard deviation of noise beside the curve, before it is smoothed
CORRELATION = 2.0  # standard deviation of the Gaussian that smooths it, in places
NOISE = 0.02  # standard deviation of noise everywhere
SHEAR = 0.75  # width of the range of slopes, per length
INPUTS = 40
# over all signals and places, found from 10^7 signals: the publication divides by those of its set
MEAN, SPREAD = -0.00605, 0.15470


def signals(digit: Array, u: Array, noise: Array) -> Array:
    """Signals of digits, (count, 40).

    digit: (count,); u: uniform in [0, 1), (count, 4), of padding, scale, translation and shear;
    noise: standard normal, (count, 2, 72), beside the curve and everywhere.
    """
    from scipy.ndimage import gaussian_filter1d

    # each signal's number in PADDING, its factor, places to the right, and slope
    padding = (u[:, 0] * len(PADDING)).astype(int)
    scale = 1 + SCALE * (u[:, 1] - 0.5)
    moved = (u[:, 2] * MOST_MOVED).astype(int)
    slope = SHEAR * (u[:, 3] - 0.5)

    # all that padding and stretching make of the templates
    stretched, inside = _stretched()
    # moved around: what leaves at the end comes in at the start
    place = (np.arange(LENGTH) - moved[:, None]) % LENGTH
    x = scale[:, None] * stretched[padding[:, None], digit[:, None], place]
    # reflected at the ends, and cut off after four standard deviations
    beside = gaussian_filter1d(CORRELATED * noise[:, 0], CORRELATION, mode="reflect", truncate=4.0)
    x = np.where(inside[padding[:, None], place], x, beside) + NOISE * noise[:, 1]
    x -= slope[:, None] * np.linspace(-0.5, 0.5, LENGTH)

    # between two places each, linearly
    at = np.linspace(0, LENGTH - 1, INPUTS)
    left = np.minimum(at.astype(int), LENGTH - 2)
    x = x[:, left] + (at - left) * (x[:, left + 1] - x[:, left])
    return (x - MEAN) / SPREAD


def _stretched() -> tuple[Array, Array]:
    """By padding: every template with zeros after it, stretched to the same length, (paddings,
    digits, length), and which places are of the curve, (paddings, length).
    """
    # from 0, where every template starts and ends
    curves = HEIGHT * (TEMPLATES - TEMPLATES[:, :1]) / TEMPLATES.std(1, keepdims=True)
    stretched = np.empty((len(PADDING), DIGITS, LENGTH))
    inside = np.empty((len(PADDING), LENGTH), dtype=bool)
    for i, zeros in enumerate(PADDING):
        last = POINTS + zeros - 1
        at = np.linspace(0, last, LENGTH)
        for digit, curve in enumerate(curves):
            stretched[i, digit] = np.interp(at, np.arange(POINTS), curve, right=0.0)
        # up to the first zero after it, in whole numbers
        inside[i] = np.arange(LENGTH) * last < POINTS * (LENGTH - 1)
    return stretched, inside
