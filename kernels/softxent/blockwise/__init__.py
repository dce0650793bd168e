"""Batches in blocks, of rows or of columns, to the bits of one call; sums that can be carried.

rows     some rows at a time: `weigh_part`, `evaluate_part`, exact sums of a part
columns  some classes of every row at a time: `class_partials`, `combine_partials`
"""
