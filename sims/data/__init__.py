"""Data sets, and what is known of their targets."""
