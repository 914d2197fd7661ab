"""What Hessian-vector products are good for: eigenvalues, density, trace, saliencies, Newton steps.

Every result says how good it is (residuals or standard errors), what it cost (n_products,
Hessian-vector products) and whether it converged. Indefinite matrices are the normal case: away
from a minimum most networks have one. All of it assumes the same H at every product: never give an
objective whose error is noisy.
"""

from perturb.curvature.density import Density as Density
from perturb.curvature.density import spectral_density as spectral_density
from perturb.curvature.eigenvalues import ENDS as ENDS
from perturb.curvature.eigenvalues import Eigenpairs as Eigenpairs
from perturb.curvature.eigenvalues import eigenpairs as eigenpairs
from perturb.curvature.eigenvalues import power_iteration as power_iteration
from perturb.curvature.steps import Saliencies as Saliencies
from perturb.curvature.steps import Step as Step
from perturb.curvature.steps import least_norm_hessian as least_norm_hessian
from perturb.curvature.steps import line_profile as line_profile
from perturb.curvature.steps import newton_step as newton_step
from perturb.curvature.steps import obd_saliencies as obd_saliencies
from perturb.curvature.steps import obs_saliencies as obs_saliencies
from perturb.curvature.steps import symmetric_hessian as symmetric_hessian
from perturb.curvature.trace import Estimated as Estimated
from perturb.curvature.trace import diagonal as diagonal
from perturb.curvature.trace import trace as trace
