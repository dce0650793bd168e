"""Sixteen lanes, and the memory that they are loaded from and stored to."""
