"""Experiments: what their files may say, how they are read and changed, and templates to start
from.
"""
