"""Words and limits that stored tables use, for those who write them and those who show them."""

TARGET_COSINE = 0.9  # with the exact answer, of the columns evaluations_to_0_9
# of a claim: its measured value, or that a form that was published is wrong as theory says it is
AGREES = "agrees"
DISAGREES = "DISAGREES"
BIASED = "published form biased"
