"""Claims of the literature against the emulator, one function for each.

A new one is a function of the seed that yields rows (`claim.Row`), and its line in CLAIMS.
"""

from perturb.errors import choose
from sims.claims import (
    calibration,
    curvature,
    devices,
    estimates,
    learning,
    rates,
    readings,
    updates,
    writes,
)
from sims.claims.claim import Claim

CLAIMS: dict[str, Claim] = {
    "least-squares": estimates.least_squares,
    "walsh-alias": estimates.walsh_alias,
    "lfsr": estimates.lfsr_correlation,
    "coverage": estimates.coverage,
    "alignment": estimates.alignment,
    "code-variance": estimates.code_variance,
    "one-at-a-time": estimates.one_at_a_time,
    "width": estimates.width,
    "learning-curves": learning.learning_curves,
    "best-amplitude": learning.best_amplitude,
    "covariance": learning.covariance_recursion,
    "stability": rates.stability,
    "limits-crossed": rates.limits_crossed,
    "averaging": rates.averaging,
    "rate-per-trial": rates.rate_per_trial,
    "calibration": calibration.calibration,
    "mgd-xor": learning.mgd_xor,
    "settling": readings.settling,
    "delay": updates.delay,
    "misalignment": updates.misalignment,
    "converter": readings.converter,
    "one-bit": readings.one_bit,
    "flicker": readings.flicker,
    "product-offset": readings.product_offset,
    "offset-mismatch": updates.offset_and_mismatch,
    "leak": updates.leak,
    "soft-bounds": writes.soft_bounds,
    "reference": devices.reference,
    "rounding": writes.rounding,
    "dithered-rounding": writes.dithered_rounding,
    "stuck-weights": updates.stuck_weights,
    "power-method": curvature.power_method,
    "hutchinson": curvature.hutchinson,
}
ALL = "all"


def chosen(name: str) -> dict[str, Claim]:
    """All claims, or the one of that name; InputError for a name that is none."""
    if name == ALL:
        return CLAIMS
    return {name: choose("claim", name, {**CLAIMS, ALL: estimates.least_squares})}
