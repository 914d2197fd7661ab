"""Claims of the literature against the emulator, one function for each.

A new one is a function of the seed that yields rows (`claim.Row`), and its line in CLAIMS.
"""

from perturb.errors import choose
from sims.claims.claim import Claim
from sims.claims.curvature import hutchinson, power_method
from sims.claims.estimates import (
    alignment,
    code_variance,
    converter,
    coverage,
    flicker,
    least_squares,
    lfsr_correlation,
    one_at_a_time,
    one_bit,
    product_offset,
    settling,
    walsh_alias,
    width,
)
from sims.claims.learning import (
    averaging,
    best_amplitude,
    covariance_recursion,
    learning_curves,
    limits_crossed,
    mgd_xor,
    rate_per_trial,
    stability,
)
from sims.claims.updates import (
    delay,
    dithered_rounding,
    leak,
    misalignment,
    offset_and_mismatch,
    rounding,
    soft_bounds,
    stuck_weights,
)

CLAIMS: dict[str, Claim] = {
    "least-squares": least_squares,
    "walsh-alias": walsh_alias,
    "lfsr": lfsr_correlation,
    "coverage": coverage,
    "alignment": alignment,
    "code-variance": code_variance,
    "one-at-a-time": one_at_a_time,
    "width": width,
    "learning-curves": learning_curves,
    "best-amplitude": best_amplitude,
    "covariance": covariance_recursion,
    "stability": stability,
    "limits-crossed": limits_crossed,
    "averaging": averaging,
    "rate-per-trial": rate_per_trial,
    "mgd-xor": mgd_xor,
    "settling": settling,
    "delay": delay,
    "misalignment": misalignment,
    "converter": converter,
    "one-bit": one_bit,
    "flicker": flicker,
    "product-offset": product_offset,
    "offset-mismatch": offset_and_mismatch,
    "leak": leak,
    "soft-bounds": soft_bounds,
    "rounding": rounding,
    "dithered-rounding": dithered_rounding,
    "stuck-weights": stuck_weights,
    "power-method": power_method,
    "hutchinson": hutchinson,
}
ALL = "all"


def chosen(name: str) -> dict[str, Claim]:
    """All claims, or the one of that name; InputError for a name that is none."""
    return CLAIMS if name == ALL else {name: choose("claim", name, {**CLAIMS, ALL: least_squares})}


def says(claim: Claim) -> str:
    """A claim in one sentence."""
    return (claim.__doc__ or "").partition("\n")[0].rstrip(".")
