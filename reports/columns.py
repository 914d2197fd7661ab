"""The columns of the tables that every sweep has."""

# of a sweep: its summary is that of the study, behind columns that tell cells apart, one for each
# varied key among them
CELLS = {
    "cell": "number of the cell",
    "repeat": "which repeat of its point; the same repeat of other points has the same seed",
    "seed": (
        "run.seed of its run, from which come perturbations, noise, and the start, direction and"
        " die that no key gives"
    ),
    "start_seed": "seed of its starting weights: weights.seed, or else derived from the seed",
    "die": "number of its die: chip.die, or else derived from the seed",
    "status": "done, failed or waiting",
    "seconds": "time that it took on this computer, s",
    "error": "why it failed; empty if it did not",
    "command": "the command that runs it alone",
}
POINTS = {
    "measure": "what was measured: a column of the summary, or the measure of a fact",
    "repeats": "repeats that gave a value",
    "unknown": "repeats that gave none",
    "mean": "mean over them",
    "sd": "standard deviation over them",
    "low": (
        "lower end of the 95 % confidence interval of the mean (Student's t; of shares of runs or"
        " dies, counted over all repeats, Clopper and Pearson's, unless weights.seed or chip.die"
        " makes them the same in all), no less than possible; empty where it cannot be known: of"
        " one repeat, or of several that gave the same"
    ),
    "high": "its upper end, not above what is possible",
    "predicted": "what theory predicts, mean over the repeats; empty where it does not say",
}
THRESHOLDS = {
    "key": "the key that is followed, the other varied ones being as they are",
    "wanted": "what is wanted of the mean over repeats",
    "values": "values of the key with results",
    "met": "at how many of them it is met",
    "edge": (
        "largest: up to which it is met; smallest: from which on it is; none: it is met at both"
        " ends, or only between"
    ),
    "value": (
        "that value, between two of those swept (whole, of a key of whole numbers); inf or -inf:"
        " beyond them; empty: none"
    ),
    "low": (
        "lower end of its 95 % confidence interval; -inf: below the values swept; empty where that"
        " of no mean is known"
    ),
    "high": "its upper end; inf: above the values swept",
    "beyond": "at how many values beyond the edge it is met again",
}
