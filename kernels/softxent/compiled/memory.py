"""Loading and storing lanes: flat arrays, any alignment, and never an element too many."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import impl_ret_borrowed

from softxent.compiled.lanes import I32, LANES, Lanes, convert, intrinsic, spread_value

_UNALIGNED = 1


@intrinsic
def as_input(typing: Any, array: Any) -> Any:
    """A flat array as inputs are typed: read-only and unaligned."""
    t = types.Array(array.dtype, 1, "C", readonly=True, aligned=False)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return impl_ret_borrowed(context, builder, t, args[0])

    return t(array), build


def without_owner(context: Any, builder: Any, array_type: Any, value: Any) -> Any:
    """Return an array that counts no references; whoever owns its memory must outlive it."""
    array = context.make_array(array_type)(context, builder, value=value)
    array.meminfo = cgutils.get_null_value(array.meminfo.type)
    array.parent = cgutils.get_null_value(array.parent.type)
    return array._getvalue()


@intrinsic
def borrowed(typing: Any, arrays: Any) -> Any:
    """A named tuple of arrays as arrays that count no references; `hold` the tuple meanwhile.

    Counting them at each step of a row took 0.65 us a row, as long as evaluating 1,000 classes.
    """

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = cgutils.unpack_tuple(builder, args[0])
        fields = [
            without_owner(context, builder, kind, value)
            for kind, value in zip(arrays.types, values, strict=True)
        ]
        return context.make_tuple(builder, arrays, fields)

    return arrays(arrays), build


@intrinsic
def hold(typing: Any, arrays: Any) -> Any:
    """Keep the memory of a tuple of arrays until here."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_dummy_value()

    return types.void(arrays), build


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index], inbounds=True)


def _vector_pointer(
    context: Any, builder: Any, t: Lanes, array_type: Any, array: Any, i: Any
) -> Any:
    pointer = _pointer(context, builder, array_type, array, i)
    return builder.bitcast(pointer, context.get_value_type(t).as_pointer())


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """array[index : index + 16] of a flat array, aligned or not."""
    t = Lanes(array.dtype)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _vector_pointer(context, builder, t, array, *args)
        return builder.load(pointer, align=_UNALIGNED)

    return t(array, types.intp), build


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index : index + 16] = value."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _vector_pointer(context, builder, value, array, *args[:2])
        builder.store(args[2], pointer, align=_UNALIGNED)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), build


def _llvm_name(t: Lanes) -> str:
    kind = "f" if isinstance(t.element, types.Float) else "i"
    return f"v{t.count}{kind}{t.element.bitwidth}"


def _first(builder: Any, count: Any, lanes: int) -> Any:
    """Return the mask of the first `count` lanes."""
    vector = ir.VectorType(ir.IntType(64), lanes)
    numbers = ir.Constant(vector, list(range(lanes)))
    return builder.icmp_signed("<", numbers, spread_value(builder, count, vector))


@intrinsic
def load_first(typing: Any, array: Any, index: Any, count: Any, fill: Any) -> Any:
    """array[index : index + count] in the first lanes, `fill` in the others; reads no further."""
    t = Lanes(array.dtype)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _vector_pointer(context, builder, t, array, *args[:2])
        vector = context.get_value_type(t)
        mask = _first(builder, args[2], t.count)
        rest = convert(context, builder, args[3], fill, t)
        name = f"llvm.masked.load.{_llvm_name(t)}.p0"
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(vector, [pointer.type, I32, mask.type, vector]),
            name,
        )
        return builder.call(function, [pointer, I32(_UNALIGNED), mask, rest])

    return t(array, types.intp, types.intp, fill), build


@intrinsic
def store_first(typing: Any, array: Any, index: Any, count: Any, value: Any) -> Any:
    """array[index : index + count] = the first lanes of value; writes no further."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _vector_pointer(context, builder, value, array, *args[:2])
        mask = _first(builder, args[2], value.count)
        name = f"llvm.masked.store.{_llvm_name(value)}.p0"
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [args[3].type, pointer.type, I32, mask.type]),
            name,
        )
        builder.call(function, [args[3], pointer, I32(_UNALIGNED), mask])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, value), build


@intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Ask for the cache lines of array[index : index + 16]; any index is harmless."""
    line = 64 * 8 // array.dtype.bitwidth

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(array)(context, builder, args[0]).data
        byte = ir.IntType(8).as_pointer()
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32]),
            "llvm.prefetch.p0",
        )
        read, keep, of_data = I32(0), I32(3), I32(1)
        for offset in range(0, LANES, line):
            at = builder.add(args[1], args[1].type(offset))
            pointer = builder.bitcast(builder.gep(data, [at]), byte)
            builder.call(function, [pointer, read, keep, of_data])
        return context.get_dummy_value()

    return types.void(array, types.intp), build
