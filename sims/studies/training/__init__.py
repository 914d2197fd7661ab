"""The study "training": does the chip learn the task, in how much chip time and energy, and how far
is it from ideal?

Several starts, each on a die and with a seed of its own, learn side by side; so does the exact
gradient, from the same starts. What is recorded along the way (exact errors, accuracies, alignment)
is computed outside the loop and costs the chip nothing.
"""
