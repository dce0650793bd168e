"""Sixteen values that move together: a vector type for numba, with the operators of one value.

`Lanes` is an LLVM vector of sixteen elements. LLVM maps it to one, two, four or eight registers
of whatever the processor has, so a kernel is written once, its order of operations is the same
on every processor, and nothing is left to the taste of an auto-vectoriser. Operators work lane
by lane; a scalar beside `Lanes` is converted to their element type and spread. The functions
below take `Lanes` and plain numbers alike, so `elementary` is written once for both.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

LANES = 16

intrinsic: Callable[[Callable[..., Any]], Any] = extending.intrinsic
I32 = ir.IntType(32)
_BITS = {types.float32: types.int32, types.float64: types.int64}


class Lanes(types.Type):
    """`count` elements of one scalar type, held in vector registers."""

    def __init__(self, element: Any, count: int = LANES) -> None:
        self.element = element
        self.count = count
        super().__init__(name=f"Lanes({element} x {count})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        boolean = lanes.element == types.boolean
        element = ir.IntType(1) if boolean else manager.lookup(lanes.element).get_value_type()
        super().__init__(manager, lanes, ir.VectorType(element, lanes.count))


def _like(t: types.Type, element: Any) -> types.Type:
    return Lanes(element, t.count) if isinstance(t, Lanes) else element


def _element(t: types.Type) -> Any:
    return t.element if isinstance(t, Lanes) else t


def spread_value(builder: Any, value: Any, vector: ir.VectorType) -> Any:
    """Return the LLVM value of a vector whose lanes are all `value`."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, I32(0))
    zeros = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, undefined, zeros)


def convert(context: Any, builder: Any, value: Any, source: types.Type, to: types.Type) -> Any:
    """Return `value` as `to`: the same, a cast scalar, or a scalar cast and spread."""
    if source == to:
        return value
    scalar = context.cast(builder, value, source, _element(to))
    return (
        spread_value(builder, scalar, context.get_value_type(to))
        if isinstance(to, Lanes)
        else scalar
    )


# Operators ------------------------------------------------------------------------------------


def _operator(
    op: Callable[..., Any],
    on_floats: Callable[..., Any] | None,
    on_integers: Callable[..., Any] | None,
    *,
    compares: bool = False,
) -> None:
    @infer_global(op)
    class _Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            lanes = [a for a in args if isinstance(a, Lanes)]
            others = [a for a in args if not isinstance(a, Lanes)]
            if kws or not lanes or len(set(lanes)) > 1:
                return None
            if not all(isinstance(a, types.Number) for a in others):
                return None
            result = _like(lanes[0], types.boolean) if compares else lanes[0]
            return signature(result, *args)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = next(t for t in sig.args if isinstance(t, Lanes))
        build: Any = on_floats if isinstance(lanes.element, types.Float) else on_integers
        operands = (
            convert(context, builder, a, t, lanes) for a, t in zip(args, sig.args, strict=True)
        )
        return build(builder, *operands)

    for pair in ((Lanes, Lanes), (Lanes, types.Number), (types.Number, Lanes)):
        lower_builtin(op, *pair)(lower)


_operator(operator.add, ir.IRBuilder.fadd, ir.IRBuilder.add)
_operator(operator.sub, ir.IRBuilder.fsub, ir.IRBuilder.sub)
_operator(operator.mul, ir.IRBuilder.fmul, ir.IRBuilder.mul)
_operator(operator.truediv, ir.IRBuilder.fdiv, None)
_operator(operator.lshift, None, ir.IRBuilder.shl)
_operator(operator.rshift, None, ir.IRBuilder.ashr)
_operator(
    operator.lt,
    lambda b, x, y: b.fcmp_ordered("<", x, y),
    lambda b, x, y: b.icmp_signed("<", x, y),
    compares=True,
)
_operator(
    operator.gt,
    lambda b, x, y: b.fcmp_ordered(">", x, y),
    lambda b, x, y: b.icmp_signed(">", x, y),
    compares=True,
)
_operator(
    operator.eq,
    lambda b, x, y: b.fcmp_ordered("==", x, y),
    lambda b, x, y: b.icmp_signed("==", x, y),
    compares=True,
)
_operator(
    operator.ne,
    lambda b, x, y: b.fcmp_unordered("!=", x, y),
    lambda b, x, y: b.icmp_signed("!=", x, y),
    compares=True,
)
_operator(operator.and_, None, ir.IRBuilder.and_)
_operator(operator.or_, None, ir.IRBuilder.or_)


# Functions of numbers and lanes alike ---------------------------------------------------------


def _common(*operands: types.Type) -> types.Type:
    return next((t for t in operands if isinstance(t, Lanes)), operands[-1])


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""
    t = _common(a, b, c)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        operands = [convert(context, builder, v, s, t) for v, s in zip(args, sig.args, strict=True)]
        llvm = context.get_value_type(t)
        shape = f"v{t.count}" if isinstance(t, Lanes) else ""
        name = f"llvm.fma.{shape}f{_element(t).bitwidth}"
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(llvm, [llvm] * 3), name
        )
        return builder.call(function, operands)

    return t(a, b, c), build


@intrinsic
def select(typing: Any, condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, else b: `select(x > y, x, y)` is one max instruction."""
    t = _common(a, b)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        chosen = [convert(context, builder, v, s, t) for v, s in zip(args[1:], (a, b), strict=True)]
        flag = args[0]
        if not isinstance(condition, Lanes):
            flag = context.cast(builder, flag, condition, types.boolean)
            flag = builder.trunc(flag, ir.IntType(1)) if flag.type.width > 1 else flag
        return builder.select(flag, *chosen)

    return t(condition, a, b), build


@intrinsic
def bits(typing: Any, value: Any) -> Any:
    """The bit pattern of a float, as an integer of the same width."""
    t = _like(value, _BITS[_element(value)])

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(t))

    return t(value), build


@intrinsic
def from_bits(typing: Any, pattern: Any) -> Any:
    """The float that has this bit pattern."""
    wide = _element(pattern).bitwidth == 64
    t = _like(pattern, types.float64 if wide else types.float32)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(t))

    return t(pattern), build


@intrinsic
def to_float64(typing: Any, value: Any) -> Any:
    """As float64, which is exact."""
    t = _like(value, types.float64)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if t == value:
            return args[0]
        return builder.fpext(args[0], context.get_value_type(t))

    return t(value), build


@intrinsic
def cast_down(typing: Any, value: Any, like: Any) -> Any:
    """float64 rounded once to the element type of `like`, an array."""
    t = _like(value, like.dtype)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if t == value:
            return args[0]
        return builder.fptrunc(args[0], context.get_value_type(t))

    return t(value, like), build


@intrinsic
def to_int32(typing: Any, value: Any) -> Any:
    """uint16 lanes as int32 lanes, or the low 32 bits of int64 lanes."""
    t = Lanes(types.int32, value.count)
    cast: Any = ir.IRBuilder.zext if value.element.bitwidth < 32 else ir.IRBuilder.trunc

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return cast(builder, args[0], context.get_value_type(t))

    return t(value), build


@intrinsic
def to_uint16(typing: Any, value: Any) -> Any:
    """The low 16 bits of int32 lanes."""
    t = Lanes(types.uint16, value.count)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.trunc(args[0], context.get_value_type(t))

    return t(value), build


# Spreading ----------------------------------------------------------------------


@intrinsic
def spread(typing: Any, value: Any) -> Any:
    """Every lane the same value."""
    t = Lanes(value)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return spread_value(builder, args[0], context.get_value_type(t))

    return t(value), build


@intrinsic
def spread_as(typing: Any, value: Any, like: Any) -> Any:
    """Every lane the same value, in the element type of `like`, an array."""
    t = Lanes(like.dtype)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return convert(context, builder, args[0], value, t)

    return t(value, like), build
