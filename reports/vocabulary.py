"""Words and limits that stored tables use, for those who write them and those who show them."""

from collections.abc import Iterable

TARGET_COSINE = 0.9  # with the exact answer, of the columns evaluations_to_0_9
# of a claim: its measured value, or that a form that was published is wrong as theory says it is
AGREES = "agrees"
DISAGREES = "DISAGREES"
BIASED = "published form biased"
# variants of a chip: with no imperfection, with this one alone, with all, with all but this one
IDEAL, ONLY, ALL, ALL_BUT = "ideal", "only", "all", "all but"
# the chip as it is designed, beside the ideal one
DESIGN = "design"
# kinds of finite differences, and what they are set beside
ONE_SIDED, CENTRAL, R_BACKPROP = "one-sided", "central", "R{backprop}"


def together(sentences: Iterable[str]) -> str:
    """Sentences as one cell of a stored table; "" of none."""
    return " ".join(f"{_begun(s) if i else s}." for i, s in enumerate(sentences))


def _begun(sentence: str) -> str:
    """As it stands behind a full stop; a letter of a formula, such as g, stays small."""
    first = sentence.partition(" ")[0]
    return (
        f"{first.capitalize()}{sentence[len(first) :]}"
        if first.isalpha() and first[1:]
        else sentence
    )
