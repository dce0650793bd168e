"""Blocks of rows and the loops over them, serial and parallel, that Python calls."""
