"""Sixteen rows into sixteen lanes, and back.

A square of sixteen by sixteen elements turns in four steps, each of which interleaves vectors
pairwise: 64 shuffles in registers, where element by element it would be 512 loads and stores.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from softxent._kernels.simd.lanes import I32, LANES, intrinsic
from softxent._kernels.simd.memory import first_in, masked_load, masked_store, vector_pointer
from softxent._kernels.simd.span import UNALIGNED

_LOWER = [n // 2 + n % 2 * LANES for n in range(LANES)]
_UPPER = [LANES // 2 + n for n in _LOWER]


def _interleaved(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, LANES), order))


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    for _ in range(4):
        pairs = list(zip(rows[: LANES // 2], rows[LANES // 2 :], strict=True))
        rows = [_interleaved(builder, a, b, order) for a, b in pairs for order in (_LOWER, _UPPER)]
    return rows


@intrinsic
def columns_from(
    typing: Any, x: Any, begin: Any, stride: Any, count: Any, taken: Any, z: Any, at: Any
) -> Any:
    """z[at + 16 j + r] = x[begin + r stride + j] for j < count, 0 for others up to sixteen.

    Lane r of `taken` says whether row r is read at all; it is zeros otherwise.
    """

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, first, step, columns, wanted, out, place = args
        rows = []
        for r in range(LANES):
            index = builder.add(first, builder.mul(step, step.type(r)))
            flag = builder.extract_element(wanted, I32(r))
            lanes = builder.select(flag, columns, columns.type(0))
            rows.append(masked_load(context, builder, x, array, index, lanes, None))
        for j, column in enumerate(_transposed(builder, rows)):
            index = builder.add(place, place.type(j * LANES))
            target = vector_pointer(context, builder, column.type, z, out, index)
            builder.store(column, target, align=UNALIGNED)
        return context.get_dummy_value()

    return types.void(x, *(types.intp,) * 3, taken, z, types.intp), build


@intrinsic
def columns_to(
    typing: Any, z: Any, at: Any, x: Any, begin: Any, stride: Any, count: Any, rows: Any, taken: Any
) -> Any:
    """x[begin + r stride + j] = z[at + 16 j + r] for j < count and r < rows, 0 if not taken."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        scratch, place, array, first, step, columns, there, wanted = args
        vector = ir.VectorType(context.get_value_type(z.dtype), LANES)
        lanes = []
        for j in range(LANES):
            index = builder.add(place, place.type(j * LANES))
            source = vector_pointer(context, builder, vector, z, scratch, index)
            lanes.append(builder.load(source, align=UNALIGNED))
        zeros = ir.Constant(vector, None)
        exists = first_in(builder, there, LANES)
        for r, row in enumerate(_transposed(builder, lanes)):
            index = builder.add(first, builder.mul(step, step.type(r)))
            value = builder.select(builder.extract_element(wanted, I32(r)), row, zeros)
            written = builder.extract_element(exists, I32(r))
            size = builder.select(written, columns, columns.type(0))
            masked_store(context, builder, x, array, index, size, value)
        return context.get_dummy_value()

    return types.void(z, types.intp, x, *(types.intp,) * 4, taken), build
