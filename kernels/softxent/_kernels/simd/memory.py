"""Loading and storing lanes: flat arrays, any alignment, and never an element too many."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from softxent._kernels.simd.lanes import I32, LANES, Lanes, convert, intrinsic, spread_value
from softxent._kernels.simd.span import UNALIGNED, pointer


def vector_pointer(
    context: Any, builder: Any, vector: Any, array_type: Any, array: Any, index: Any
) -> Any:
    """Return the LLVM pointer to a vector that begins at an element."""
    at = pointer(context, builder, array_type, array, index)
    return builder.bitcast(at, vector.as_pointer())


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """array[index : index + 16] of a flat array, aligned or not."""
    t = Lanes(array.dtype)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = context.get_value_type(t)
        at = vector_pointer(context, builder, vector, array, *args)
        return builder.load(at, align=UNALIGNED)

    return t(array, types.intp), build


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index : index + 16] = value."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = vector_pointer(context, builder, args[2].type, array, *args[:2])
        builder.store(args[2], at, align=UNALIGNED)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), build


def first_in(builder: Any, count: Any, lanes: int) -> Any:
    """Return the LLVM mask of the first `count` lanes."""
    vector = ir.VectorType(ir.IntType(64), lanes)
    numbers = ir.Constant(vector, list(range(lanes)))
    return builder.icmp_signed("<", numbers, spread_value(builder, count, vector))


@intrinsic
def first_lanes(typing: Any, count: Any) -> Any:
    """Whether a lane is among the first `count`."""
    t = Lanes(types.boolean)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return first_in(builder, args[0], LANES)

    return t(types.intp), build


def _llvm_name(t: Lanes) -> str:
    kind = "f" if isinstance(t.element, types.Float) else "i"
    return f"v{t.count}{kind}{t.element.bitwidth}"


def masked_load(
    context: Any, builder: Any, kind: Any, array: Any, index: Any, count: Any, fill: Any
) -> Any:
    """Return the LLVM vector of the first `count` elements from an index; `fill` None is zeros."""
    t = Lanes(kind.dtype)
    vector = context.get_value_type(t)
    at = vector_pointer(context, builder, vector, kind, array, index)
    mask = first_in(builder, count, LANES)
    rest = ir.Constant(vector, None) if fill is None else fill
    name = f"llvm.masked.load.{_llvm_name(t)}.p0"
    signature = ir.FunctionType(vector, [at.type, I32, mask.type, vector])
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    return builder.call(function, [at, I32(UNALIGNED), mask, rest])


def masked_store(
    context: Any, builder: Any, kind: Any, array: Any, index: Any, count: Any, value: Any
) -> None:
    """Store the first `count` lanes of an LLVM vector from an index on."""
    at = vector_pointer(context, builder, value.type, kind, array, index)
    mask = first_in(builder, count, LANES)
    name = f"llvm.masked.store.{_llvm_name(Lanes(kind.dtype))}.p0"
    signature = ir.FunctionType(ir.VoidType(), [value.type, at.type, I32, mask.type])
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    builder.call(function, [value, at, I32(UNALIGNED), mask])


@intrinsic
def load_first(typing: Any, array: Any, index: Any, count: Any, fill: Any) -> Any:
    """array[index : index + count] in the first lanes, `fill` in the others; reads no further."""
    t = Lanes(array.dtype)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        rest = convert(context, builder, args[3], fill, t)
        memory, at, size, _ = args
        return masked_load(context, builder, array, memory, at, size, rest)

    return t(array, types.intp, types.intp, fill), build


@intrinsic
def store_first(typing: Any, array: Any, index: Any, count: Any, value: Any) -> Any:
    """array[index : index + count] = the first lanes of value; writes no further."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory, at, size, lanes = args
        masked_store(context, builder, array, memory, at, size, lanes)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, value), build


@intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Ask for the cache lines of array[index : index + 16]; any index is harmless."""
    line = 64 * 8 // array.dtype.bitwidth

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = pointer(context, builder, array, args[0], I32(0))
        byte = ir.IntType(8).as_pointer()
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32]),
            "llvm.prefetch.p0",
        )
        read, keep, of_data = I32(0), I32(3), I32(1)
        for offset in range(0, LANES, line):
            at = builder.add(args[1], args[1].type(offset))
            address = builder.bitcast(builder.gep(data, [at]), byte)
            builder.call(function, [address, read, keep, of_data])
        return context.get_dummy_value()

    return types.void(array, types.intp), build
