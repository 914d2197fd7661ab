"""Sweeps: their plan, where their cells run, and how one cell runs."""
