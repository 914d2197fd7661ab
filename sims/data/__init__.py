"""Data sets, and what is known of their targets."""

from sims.data.loading import load_data, load_split

__all__ = ["load_data", "load_split"]
