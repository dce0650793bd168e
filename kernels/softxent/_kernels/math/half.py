"""float16 and bfloat16: stored in 16 bits, computed in float32, rounded once.

Neither type exists in compiled code, so arrays of both arrive as uint16. A few rows at a time are
decoded into float32 scratch that stays in the cache, evaluated there by the float32 loop, in
place, and encoded into the output. So the result is the float32 result, rounded to nearest even.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import overload

from softxent._kernels.build.compilation import inlined
from softxent._kernels.simd.lanes import (
    LANES,
    Lanes,
    bits,
    from_bits,
    intrinsic,
    select,
    spread_as,
    to_int32,
    to_uint16,
)
from softxent._kernels.simd.memory import load, load_first, store, store_first

_SIGN = 0x8000
_INFINITY_32 = 0x7F800000
_INFINITY_16 = 0x7C00
_LARGEST_BELOW_INFINITY_16 = 0x477FF000
"""The least float32 pattern that rounds to infinity in float16: 65520."""
_NORMAL_16 = 0x38800000
"""The pattern of 2^-14, the least normal float16."""


def _converts_float16() -> bool:
    """Whether the processor that code is compiled for has instructions for float16."""
    return "+f16c" in cpu_target.target_context.codegen().magic_tuple()[2]


def converts_float16():
    """Return `_converts_float16` (in compiled code)."""
    raise TypeError("converts_float16 is for compiled code")


@overload(converts_float16, jit_options={"forceinline": True})
def _converts_float16_compiled():
    if _converts_float16():
        return lambda: True
    return lambda: False


@intrinsic
def from_float16(typing: Any, v: Any) -> Any:
    """float32 lanes of uint16 lanes that hold float16."""
    t = Lanes(types.float32, v.count)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        halves = builder.bitcast(args[0], ir.VectorType(ir.HalfType(), v.count))
        return builder.fpext(halves, context.get_value_type(t))

    return t(v), build


@intrinsic
def to_float16(typing: Any, v: Any) -> Any:
    """uint16 lanes that hold float32 lanes rounded to float16."""
    t = Lanes(types.uint16, v.count)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        halves = builder.fptrunc(args[0], ir.VectorType(ir.HalfType(), v.count))
        return builder.bitcast(halves, context.get_value_type(t))

    return t(v), build


@inlined
def decode_lanes(v, bfloat16):
    """Return uint16 lanes, which hold float16 or bfloat16, as float32; exact."""
    if bfloat16:
        return from_bits(to_int32(v) << 16)
    if converts_float16():
        return from_float16(v)
    v = to_int32(v)
    magnitude = v & (_SIGN - 1)
    # The exponent's bias is 112 less: the product is exact for subnormal numbers too.
    scaled = bits(from_bits(magnitude << 13) * 2.0**112)
    scaled = select(magnitude < _INFINITY_16, scaled, (magnitude << 13) | _INFINITY_32)
    return from_bits(scaled | ((v & _SIGN) << 16))


@inlined
def encode_lanes(v, bfloat16, like):
    """Return float32 lanes rounded to nearest even, as the patterns of float16 or bfloat16."""
    pattern = bits(v)
    if bfloat16:
        rounded = (pattern + (((pattern >> 16) & 1) + 0x7FFF)) >> 16
        return to_uint16(select(v == v, rounded, 0x7FC0))
    if converts_float16():
        return to_float16(v)
    sign = (pattern >> 16) & _SIGN
    magnitude = pattern & 0x7FFFFFFF
    normal = (magnitude + (((magnitude >> 13) & 1) + 0xFFF) - (112 << 23)) >> 13
    # Adding 1/2 leaves a subnormal number's bits, rounded, at the end of the sum's mantissa.
    half = spread_as(0.5, like)
    subnormal = bits(from_bits(magnitude) + half) - bits(half)
    result = select(magnitude < _NORMAL_16, subnormal, normal)
    result = select(magnitude < _LARGEST_BELOW_INFINITY_16, result, _INFINITY_16)
    result = select(magnitude > _INFINITY_32, 0x7E00, result)
    return to_uint16(result | sign)


@inlined
def decode(stored, begin, count, bfloat16, out):
    """out[:count] = stored[begin : begin + count] as float32."""
    whole = count // LANES * LANES
    for j in range(0, whole, LANES):
        store(out, j, decode_lanes(load(stored, begin + j), bfloat16))
    if whole < count:
        v = load_first(stored, begin + whole, count - whole, np.uint16(0))
        store_first(out, whole, count - whole, decode_lanes(v, bfloat16))


@inlined
def encode(values, count, bfloat16, stored_out, begin):
    """stored_out[begin : begin + count] = values[:count], rounded once."""
    whole = count // LANES * LANES
    for j in range(0, whole, LANES):
        store(stored_out, begin + j, encode_lanes(load(values, j), bfloat16, values))
    if whole < count:
        v = load_first(values, whole, count - whole, 0.0)
        store_first(stored_out, begin + whole, count - whole, encode_lanes(v, bfloat16, values))
