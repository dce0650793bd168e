"""The compiled half: one row, the loop over rows, and what they are made of.

lanes         sixteen values that move together, with the operators of one
elementary    exp and log1p from + - x / fma and bit operations
exact_sum     an accumulator in which order and split do not exist
tiles         passes over one tile of a row
rows          one row: pass A, scalars, pass B, then a few elements put right
narrow        the same for rows of a few classes, sixteen rows in the lanes
loops         the loops over rows, serial and parallel from one source
compilation   how all of it is compiled and cached, in one place
threading     when the parallel loops may be entered
"""
