"""Estimates of gradient and Hv from trials: statistics, their solution, precision, comparison."""
