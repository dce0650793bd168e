"""Compilation of kernels, the cache of machine code, and a guard against lost pages."""
