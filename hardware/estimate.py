"""The estimate of a chip whose sums may have leaked, and whose synapses may have failed."""

import math
from copy import copy

import numpy as np

from hardware.params import ChipParams
from hardware.parts.die import Health
from perturb.estimation.solution import Estimate, solve
from perturb.estimation.statistics import Statistics


def solved(params: ChipParams, health: Health, statistics: Statistics) -> Estimate:
    """The estimate from a chip's sums; of a synapse that does not work it is 0, with an unknown
    error.

    A leak weighs the trials by (1-l)^age: sums count as many trials as the weights sum to, and the
    errors are those of the (sum)^2 / (sum of squares) trials that the weights amount to.
    """
    K = statistics.trials
    keep = 1.0 - params.synapse.leak
    counted = worth = float(K)
    # copies, as the run goes on from the sums as they are
    weighed = copy(statistics)
    weighed.periods = copy(statistics.periods)
    # periods are compared as alike, which sums that leak, clip or miss words are not
    if weighed.periods and (keep < 1.0 or params.bus.drop_probability or params.synapse.sum_range):
        weighed.periods.sound = False
    if keep < 1.0:
        # the sum of (1-l)^age over K trials; a whole leak leaves the last one
        counted = (1.0 - keep**K) / (1.0 - keep) if keep else 1.0
        # (sum of weights)^2 / (sum of their squares)
        worth = counted**2 * (1.0 - keep**2) / (1.0 - keep ** (2 * K)) if keep else 1.0
        # `solve` divides by K: as if every trial had the weight 1
        weighed.closed = (statistics.sums * K / counted, statistics.totals * K / counted)
        weighed.open = weighed.zeros()
    found = solve(weighed)
    # as of the last trial: a synapse that has stopped by then tells nothing
    works = health.working(statistics.next_trial - 1)
    wider = math.sqrt(K / worth) if worth > 2 else math.nan  # as after two trials, see `solve`
    no_z = 0.0 if statistics.design.method.estimates_hv else np.nan
    return Estimate(
        gradient=np.where(works, found.gradient, 0.0),
        gradient_stderr=np.where(works, wider * found.gradient_stderr, np.nan),
        hv=np.where(works, found.hv, no_z),
        hv_stderr=np.where(works, wider * found.hv_stderr, np.nan),
        trials=found.trials,
        evaluations=found.evaluations,
        statistics=statistics,
        gradient_df=found.gradient_df * worth / K,
        hv_df=found.hv_df * worth / K,
        unknown=found.unknown,
    )
