"""What the columns of stored tables mean, and their units."""

SUMMARY = {
    "quantity": "gradient (dE/dw) or hv (z = Hv)",
    "method": "method of weight perturbation",
    "code": "perturbation code",
    "n_weights": "weights of the network, biases included",
    "trials": "draws of the perturbation",
    "evaluations": "measurements of E",
    "cosine": "cosine of the estimate with exact R{backprop}",
    "relative_error": "|estimate - exact| / |exact|",
    "rms_stderr": "rms over weights of the standard error, units of the quantity; empty where it cannot be known",
    "z_rms": "rms over weights of (estimate - exact)/stderr; about 1 without bias",
    "limit_relative_error": "|estimate - limit| / |limit|, the limit being what theory says the method tends to",
    "chip_time_s": "time on the chip, s",
    "energy_j": "energy on the chip, J",
    "wall_time_s": "time of this simulation, s",
    "events": "events simulated in time",
    "limit_z_rms": "rms over weights of (estimate - limit)/stderr; about 1 if theory is right",
    "label": "as published, or an extension",
    "sigma": "rms of a perturbation, units of w",
    "r": "displacement along v; empty for methods without",
    "broadcasts": "what every synapse must be told",
    "predicted_cosine": "cosine that theory predicts",
    "limit_cosine": "cosine of the method's limit with the exact answer: the best that any number of trials reaches",
    "evaluations_to_0_9": "predicted evaluations to a cosine of 0.9; inf = never",
    "verdict": "the same in words",
    "primary": "whether this is the experiment's own method (the others were set beside it)",
    "status": "complete, or partial if the run ended early",
    "warnings": "what to mind about the method, its code and the number of trials; empty if nothing",
    "trial_ns": "chip time of a trial, ns",
    "busiest": "part of the chip that limits the trial rate",
    "busiest_share": "share of the chip time in which it was at work",
    "converter_share": "share of the chip time in which the error unit's converter was busy",
    "bus_share": "share of the chip time in which the broadcast bus was busy",
    "incidents": "what went wrong on the chip; empty if nothing",
    "faultless_cosine": "cosine of the same run without the faults that it met; empty if it met none",
    "predicted_relative_error": "relative error that theory predicts",
}
WEIGHTS = {
    "method": "method",
    "code": "code",
    "index": "number of the weight in the flat vector w",
    "unit_from": "unit it comes from, inputs first; -1 = bias",
    "unit_to": "unit it goes to",
    "w": "weight",
    "v": "direction",
    "g_exact": "exact dE/dw",
    "g_hat": "estimated dE/dw",
    "g_stderr": "its standard error",
    "hv_exact": "exact (Hv)_i",
    "hv_hat": "estimated (Hv)_i; empty for a method of the gradient alone",
    "hv_stderr": "its standard error",
    "hv_limit": "what the method tends to, by theory",
}
CONVERGENCE = {
    "method": "method",
    "code": "code",
    "quantity": "gradient or hv",
    "trials": "trials so far",
    "evaluations": "measurements of E so far",
    "cosine": "cosine with the exact answer",
    "relative_error": "|estimate - exact| / |exact|",
    "predicted_cosine": "predicted cosine",
    "predicted_relative_error": "predicted relative error",
}
TIMELINE = {
    "method": "method",
    "code": "code",
    "trial": "trial",
    "phase": "evaluation within the trial, -1 = none",
    "start_ns": "start, ns of chip time",
    "end_ns": "end, ns of chip time",
    "unit": "part of the chip",
    "action": "what it did",
}
ENERGY = {
    "method": "method",
    "code": "code",
    "cause": "what the energy was spent on",
    "energy_j": "energy of the whole run, J",
}
FACTS = {
    "fact": "what was found out",
    "value": "its value, in units of the meaning",
    "stderr": "its standard error; 0 for what is exact to rounding",
    "meaning": "what it says",
}
EXTREMES = {"eigenvalue": "eigenvalue of H, from either end", "residual": "|H x - lambda x| of its vector x"}
EIGENVALUES = {
    "eigenvalue": "eigenvalue of H, or node of the quadrature",
    "weight": "its share of the spectrum; the shares sum to 1",
    "exact": "whether these are all eigenvalues of H, rather than nodes of stochastic Lanczos quadrature",
}
ESTIMATORS = {
    "quantity": "gradient (dE/dw) or hv (z = Hv)",
    "method": "method of weight perturbation",
    "code": "perturbation code",
    "n_weights": "weights of the network, biases included",
    "trials": "draws of the perturbation, each time",
    "evaluations": "measurements of E, each time",
    "predicted_bias": "|limit - exact| / |exact|, the limit by theory, with terms in sigma and r; empty where it does not say",
    "measured_bias": "|mean over the repeats - exact| / |exact|, less what chance leaves of it",
    "bias_resolution": "what chance leaves of it: a smaller bias cannot be seen",
    "predicted_error": "relative error that theory predicts, root of the mean square",
    "measured_error": "|estimate - exact| / |exact|, root of the mean square over the repeats",
    "error_spread": "standard deviation of the relative error over the repeats",
    "predicted_cosine": "cosine with the exact answer that theory predicts",
    "measured_cosine": "mean cosine over the repeats",
    "z_rms": "rms of (estimate - limit)/stderr; about 1 if theory and standard errors are right",
    "evaluations_to_0_9": "predicted evaluations to a cosine of 0.9; inf = never",
    "trials_per_s": "trials simulated a second",
    "broadcasts": "what every synapse must be told",
}
ABLATION = {
    "quantity": "gradient (dE/dw) or hv (z = Hv)",
    "variant": "ideal, only one imperfection, all, or all but one",
    "imperfections": "those that this chip has",
    "dies": "dies simulated, each with a seed of its own",
    "trials": "trials on each",
    "cosine": "mean cosine with exact R{backprop}",
    "cosine_spread": "its standard deviation over the dies",
    "relative_error": "|estimate - exact| / |exact|, root of the mean square",
    "yield": "share of the dies that reach the accuracy wanted",
    "trials_to_accuracy": "trials to a mean cosine as wanted, from the errors after a quarter and all of the trials; inf = never",
    "time_to_accuracy_s": "chip time for them, s",
    "energy_to_accuracy_j": "energy for them, J",
    "trial_ns": "chip time of a trial, ns",
}
DIES = {
    "die": "number of the die, the seed of all that differs between them",
    "quantity": "gradient or hv",
    "trials": "trials on each",
    "cosine": "cosine with exact R{backprop}",
    "relative_error": "|estimate - exact| / |exact|",
    "incidents": "what went wrong on it",
}
SENSITIVITIES = {
    "key": "parameter of the chip",
    "value": "its value, in the unit of its name",
    "change": "what is done to it",
    "quantity": "gradient or hv",
    "trials_saved": "share of the trials saved, by theory",
    "time_saved": "share of the chip time saved",
    "energy_saved": "share of the energy saved",
}
ERRORS = {
    "kind": "one-sided or central difference of two gradients",
    "displacement": "|r v|, units of the weights",
    "error": "|difference - Hv| / |Hv|, with Hv by R{backprop}; empty where the network did not settle",
}
OPTIMISATION = {
    "optimiser": "which optimiser",
    "cost": "gradient-equivalents spent: a gradient or an Hv 1, an error alone 1/3",
    "error": "lowest E with its decay so far",
    "gradient_norm": "|g| there",
}
MODES = {
    "eigenvalue": "eigenvalue of H with decay, at the minimum",
    "predicted_updates": "updates of gradient descent to 1/e along its vector, -1/ln(1 - eta lambda), eta = 1/(2 lambda_max)",
    "measured_updates": "the same, from a simulated descent",
    "simulated_updates": "updates simulated",
}
EVIDENCE = {
    "decay": "weight decay alpha, in E + alpha |w|^2 / 2",
    "train_error": "E on the patterns learned, without decay",
    "test_error": "E on the patterns held back",
    "test_accuracy": "share of them classified rightly; empty where targets are no classes",
    "gradient_norm": "|g| with decay; where it is not small, or H with decay not positive, no minimum was found",
    "gamma": "well-determined parameters, sum of l / (l + alpha) over the eigenvalues l of H without decay; empty: no minimum",
    "negative": "number of negative eigenvalues of H without decay",
    "lowest_eigenvalue": "the lowest of them",
    "log_determinant": "ln det(H + alpha I), from all eigenvalues; empty: no minimum",
    "lanczos_log_determinant": "the same by stochastic Lanczos quadrature",
    "lanczos_stderr": "its standard error",
    "log_evidence": "ln P(data | alpha), up to a constant (MacKay 1992); empty: no minimum",
    "next_decay": "MacKay's next alpha, gamma / (S |w|^2)",
}
PRUNING = {
    "method": "magnitude, OBD (H_ii w_i^2 / 2) or OBS (w_i^2 / (2 [H^-1]_ii), the others adjusted)",
    "removed": "share of the weights removed",
    "train_error": "E on the patterns learned, without decay",
    "test_error": "E on the patterns held back",
    "test_accuracy": "share of them classified rightly; empty where targets are no classes",
}
LEARNING = {
    "source": "of the updates: batch or event (the chip), a label of compare_with, or exact (the exact gradient)",
    "run": "number of the run: seeds and die are so much higher than the first",
    "update": "updates done",
    "trials": "trials done",
    "evaluations": "measurements of E, those of measured rates included",
    "chip_time_s": "chip time, s",
    "energy_j": "energy on the chip, J",
    "error": "E at the weights, on the patterns learned, exact",
    "accuracy": "share of them classified rightly; empty where targets are no classes",
    "test_error": "E on the patterns held back",
    "test_accuracy": "share of them classified rightly",
    "alignment": "cosine of the change since the last record with minus the exact gradient there",
    "rate": "learning rate in use, eta / (1 + update/decay) without the decay",
    "diverged": "whether the error is no longer finite, or 10,000 times that at the start",
    "predicted_error": "expected error by theory, where E is quadratic",
}
ADVICE = {
    "setting": "key of the experiment",
    "used": "its value",
    "advised": "what theory advises",
    "mind": "whether the value had better be changed",
    "why": "reason",
}
CLAIMS = {
    "name": "name of the claim: perturb reproduce NAME",
    "says": "the claim in a sentence",
    "claim": "the statement that a row is about, and its unit",
    "source": "who made it; derived here: from the definitions, in the docstring of the claim",
    "setting": "on what it is measured",
    "predicted": "value that it predicts",
    "measured": "value that the emulator gives",
    "stderr": "standard error of the measured value; 0 for what has no chance in it",
    "tolerance": "what the prediction leaves out, or rounding",
    "verdict": "agrees: within 5 stderr + tolerance, else DISAGREES; published form biased: wrong, as theory says it should be",
}
# study: table: column: meaning
COLUMNS = {
    "compare": {"summary": SUMMARY, "weights": WEIGHTS, "convergence": CONVERGENCE, "timeline": TIMELINE, "energy": ENERGY},
    "estimators": {"summary": ESTIMATORS},
    "ablation": {"summary": ABLATION},
    "dies": {"summary": FACTS, "dies": DIES},
    "budget": {"summary": FACTS, "sensitivities": SENSITIVITIES},
    "spectrum": {"summary": FACTS, "extremes": EXTREMES, "eigenvalues": EIGENVALUES},
    "finite-difference": {"summary": FACTS, "errors": ERRORS},
    "uses": {
        "summary": FACTS,
        "optimisation": OPTIMISATION,
        "eigenvalues": EIGENVALUES,
        "modes": MODES,
        "evidence": EVIDENCE,
        "pruning": PRUNING,
    },
    "training": {"summary": FACTS, "learning": LEARNING, "advice": ADVICE},
    "reproduce": {"summary": CLAIMS},
}
# of a sweep: its summary is that of the study, behind columns that tell cells apart, one for each varied key among them
CELLS = {
    "cell": "number of the cell",
    "repeat": "which repeat of its point",
    "seed": "run.seed of its run",
    "status": "done, failed or waiting",
    "seconds": "time that it took on this computer, s",
    "error": "why it failed; empty if it did not",
    "command": "the command that runs it alone",
}
POINTS = {
    "measure": "what was measured: a column of the summary, or a fact",
    "repeats": "repeats with a value",
    "mean": "mean over them",
    "sd": "standard deviation over them",
    "low": "lower end of the 95 % confidence interval of the mean (Student's t over repeats); empty for a single one",
    "high": "its upper end",
    "predicted": "what theory predicts, mean over the repeats; empty where it does not say",
}
GROUP = {"group": "what the fact is about: a source of updates, a quantity, ...; empty if it stands for itself"}
THRESHOLDS = {
    "key": "what is varied",
    "wanted": "what is wanted of the mean over repeats",
    "edge": "which value is meant: the largest at which it is still met, or the smallest from which on it is",
    "value": "that value, between two of those swept; inf or -inf: beyond them",
    "low": "lower end of its 95 % confidence interval; -inf: below the values swept; empty for a single repeat",
    "high": "its upper end; inf: above the values swept",
}
