"""Compiled loops: arrays in, arrays out. Knows no network class."""
