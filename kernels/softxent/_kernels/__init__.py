"""The compiled half, in folders that import downwards only: loop, row, math, build, simd.

simd    lanes         sixteen values that move together, with the operators of one
        span          flat memory without an owner
        memory        lanes to and from memory
build   compilation   how all of it is compiled and cached, in one place
math    elementary    exp and log1p from + - x / fma and bit operations
        exact_sum     an accumulator in which order and split do not exist
row     task          the fields of a batch, declared once
        record        the pointer that carries them
        tiles         passes over one tile of a row
        rows          one row: pass A, scalars, pass B, then a few elements put right
        narrow        the same for rows of a few classes, sixteen rows in the lanes
        top_k         targets that name a few classes, and what they leave out
        checks        what every row weighs, and whether its target can be one
loop    blocks        a block of rows
        loops         the loops over blocks, serial and parallel from one source
        threads       when the parallel loops may be entered
"""
