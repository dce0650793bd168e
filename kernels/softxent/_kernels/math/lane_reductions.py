"""Reductions of sixteen lanes to one value, always by halves: that order is part of the bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import overload

from softxent._kernels.build.compilation import inlined
from softxent._kernels.math.elementary import is_single, two_sum
from softxent._kernels.simd.lanes import I32, Lanes, intrinsic, select, to_float64


def _half(upper: bool) -> Any:
    @intrinsic
    def half(typing: Any, value: Any) -> Any:
        count = value.count // 2
        t = Lanes(value.element, count)
        numbers = list(range(count, 2 * count) if upper else range(count))

        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            undefined = ir.Constant(args[0].type, ir.Undefined)
            indices = ir.Constant(ir.VectorType(I32, count), numbers)
            return builder.shuffle_vector(args[0], undefined, indices)

        return t(value), build

    return half


lower_half = _half(upper=False)
upper_half = _half(upper=True)


@intrinsic
def lane(typing: Any, value: Any, index: Any) -> Any:
    """The value in one lane."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.extract_element(args[0], args[1])

    return value.element(value, types.intp), build


@intrinsic
def any_lane(typing: Any, mask: Any) -> Any:
    """Whether the condition holds in any lane."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        integer = ir.IntType(mask.count)
        pattern = builder.bitcast(args[0], integer)
        hit = builder.icmp_unsigned("!=", pattern, integer(0))
        return context.cast(builder, hit, types.boolean, types.boolean)

    return types.boolean(mask), build


@intrinsic
def count_lanes(typing: Any, mask: Any) -> Any:
    """In how many lanes the condition holds."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pattern = builder.bitcast(args[0], ir.IntType(mask.count))
        return builder.ctpop(builder.zext(pattern, ir.IntType(64)))

    return types.int64(mask), build


@inlined
def fold_maximum(v):
    """Return the largest of sixteen lanes that hold no NaN."""
    lower, upper = lower_half(v), upper_half(v)
    v8 = select(upper > lower, upper, lower)
    lower, upper = lower_half(v8), upper_half(v8)
    v4 = select(upper > lower, upper, lower)
    lower, upper = lower_half(v4), upper_half(v4)
    v2 = select(upper > lower, upper, lower)
    a, b = lane(v2, 0), lane(v2, 1)
    return select(b > a, b, a)


@inlined
def fold_sum(v, low):
    """Return the sum of sixteen float64 lanes and of their compensations."""
    v8, e8 = two_sum(lower_half(v), upper_half(v))
    low8 = (lower_half(low) + upper_half(low)) + e8
    v4, e4 = two_sum(lower_half(v8), upper_half(v8))
    low4 = (lower_half(low8) + upper_half(low8)) + e4
    v2, e2 = two_sum(lower_half(v4), upper_half(v4))
    low2 = (lower_half(low4) + upper_half(low4)) + e2
    total, e1 = two_sum(lane(v2, 0), lane(v2, 1))
    return total + ((lane(low2, 0) + lane(low2, 1)) + e1)


@inlined
def add_for(like, acc, low, v):
    """Add float64 lanes: compensated if the elements of an array are float64 too.

    An infinite sum is left without a compensation, which would be NaN.
    """
    if is_single(like):
        return acc + v, low
    total, error = two_sum(acc, v)
    return total, low + select(total < np.inf, error, 0.0)


def add_lanes(acc, low, v):
    """Add lanes to float64 lanes: compensated for float64 (in compiled code)."""
    raise TypeError("add_lanes is for compiled code")


@overload(add_lanes, jit_options={"forceinline": True})
def _add_lanes(acc, low, v):
    if v.element == types.float32:
        return lambda acc, low, v: (acc + to_float64(v), low)

    def compensated(acc, low, v):
        total, error = two_sum(acc, v)
        return total, low + error

    return compensated
