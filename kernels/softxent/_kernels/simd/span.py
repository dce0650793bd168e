"""Flat memory without an owner: where it begins and how many elements it has.

numba's arrays count references, at each step that passes them on, and carry seven values where two
will do: in the row loops that took 0.25 us a row, and twice the compiler's time. A span counts
nothing; `hold` keeps the arrays that it looks into until the last use.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, make_attribute_wrapper, models, overload, register_model

from softxent._kernels.simd.lanes import intrinsic

UNALIGNED = 1


class Span(types.Type):
    """Elements of one scalar type side by side in memory, aligned or not."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Span({dtype})")


def read(dtype: Any, dimensions: int = 1) -> Any:
    """Take any C-contiguous array: mutable or read-only, aligned or not."""
    return types.Array(dtype, dimensions, "C", readonly=True, aligned=False)


def write(dtype: Any, dimensions: int = 1) -> Any:
    """Take a C-contiguous array that is written, aligned or not."""
    return types.Array(dtype, dimensions, "C", aligned=False)


@register_model(Span)
class _SpanModel(models.StructModel):
    def __init__(self, manager: Any, span: Span) -> None:
        members = [("data", types.CPointer(span.dtype)), ("size", types.intp)]
        super().__init__(manager, span, members)


make_attribute_wrapper(Span, "size", "size")


@infer_global(operator.getitem)
class _GetItem(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:  # noqa: ARG002
        if len(args) == 2 and isinstance(args[0], Span) and isinstance(args[1], types.Integer):
            return signature(args[0].dtype, args[0], types.intp)
        return None


@lower_builtin(operator.getitem, Span, types.intp)
def _get(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    at = pointer(context, builder, sig.args[0], *args)
    return context.unpack_value(builder, sig.args[0].dtype, at, align=UNALIGNED)


@infer_global(operator.setitem)
class _SetItem(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:  # noqa: ARG002
        if len(args) == 3 and isinstance(args[0], Span) and isinstance(args[1], types.Integer):
            return signature(types.none, args[0], types.intp, args[0].dtype)
        return None


@lower_builtin(operator.setitem, Span, types.intp, types.Any)
def _set(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    at = pointer(context, builder, sig.args[0], *args[:2])
    context.pack_value(builder, sig.args[0].dtype, args[2], at, align=UNALIGNED)
    return context.get_dummy_value()


def pointer(context: Any, builder: Any, kind: Any, memory: Any, index: Any) -> Any:
    """Return the LLVM pointer to an element of a span or of a flat array."""
    if isinstance(kind, Span):
        data = cgutils.create_struct_proxy(kind)(context, builder, value=memory).data
    else:
        data = context.make_array(kind)(context, builder, memory).data
    return builder.gep(data, [index], inbounds=True)


def span_of(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    """Return the LLVM value of the span of all elements of a C-contiguous array."""
    view = context.make_array(array_type)(context, builder, array)
    span = cgutils.create_struct_proxy(Span(array_type.dtype))(context, builder)
    span.data, span.size = view.data, view.nitems
    return span._getvalue()


@intrinsic
def as_span(typing: Any, array: Any) -> Any:
    """All elements of a C-contiguous array, which must be held."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return span_of(context, builder, array, args[0])

    return Span(array.dtype)(array), build


@intrinsic
def part(typing: Any, span: Any, begin: Any, end: Any) -> Any:
    """span[begin : end], unchecked; nothing of a span that is empty."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole = cgutils.create_struct_proxy(span)(context, builder, value=args[0])
        result = cgutils.create_struct_proxy(span)(context, builder)
        empty = builder.icmp_signed("==", whole.size, ir.Constant(whole.size.type, 0))
        count = builder.sub(args[2], args[1])
        result.data = builder.gep(whole.data, [args[1]])
        result.size = builder.select(empty, whole.size, count)
        return result._getvalue()

    return span(span, types.intp, types.intp), build


def element_of(span):
    """Return the NumPy type of a span's elements, float32 or float64 (in compiled code)."""
    raise TypeError("element_of is for compiled code")


@overload(element_of, jit_options={"forceinline": True})
def _element_of(span):
    if span.dtype == types.float32:
        return lambda span: np.float32
    return lambda span: np.float64


@intrinsic
def hold(typing: Any, arrays: Any) -> Any:
    """Keep the memory of a tuple of arrays until here."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_dummy_value()

    return types.void(arrays), build
