"""Networks and their errors, with exact gradient and Hv by R{backprop}."""
