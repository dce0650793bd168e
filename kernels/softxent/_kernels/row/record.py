"""Records of a task's fields: filled from arrays, read into a task, moved on to other rows."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import models, register_model

from softxent._kernels.row.task import (
    FIELDS,
    NAMES,
    OFFSETS,
    Array,
    Record,
    Rows,
    Task,
    words_of,
)
from softxent._kernels.simd.lanes import intrinsic
from softxent._kernels.simd.span import Span, span_of

_WORD = ir.IntType(64)


@register_model(Record)
class _RecordModel(models.PrimitiveModel):
    def __init__(self, manager: Any, record: Record) -> None:
        super().__init__(manager, record, _WORD.as_pointer())


def _word(builder: Any, record: Any, offset: int) -> Any:
    return _word_at(builder, record, _WORD(offset))


def _word_at(builder: Any, record: Any, offset: Any) -> Any:
    return builder.gep(record, [offset], inbounds=True)


@intrinsic
def filled_record(typing: Any, template: Any, arrays: Any) -> Any:
    """Copy a template and point it to a tuple of arrays; return the record's address.

    Which arrays they are follows from their number, see `NAMES`. The address is an integer,
    because parallel loops take no pointers. The record lives as long as the function that calls
    this, which must hold the arrays.
    """
    kind, names = NAMES[len(arrays.types)]

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        room = cgutils.alloca_once(builder, ir.ArrayType(_WORD, words_of(kind)))
        record = builder.bitcast(room, _WORD.as_pointer())
        source = context.make_array(template)(context, builder, args[0]).data
        cgutils.raw_memcpy(builder, record, source, _WORD(words_of(kind)), 8)
        given = cgutils.unpack_tuple(builder, args[1])
        for name, array_type, value in zip(names, arrays.types, given, strict=True):
            view = context.make_array(array_type)(context, builder, value)
            at = _word(builder, record, OFFSETS[name])
            builder.store(builder.ptrtoint(view.data, _WORD), at)
            builder.store(view.nitems, _word(builder, at, 1))
        return builder.ptrtoint(record, _WORD)

    return types.intp(template, arrays), build


@intrinsic
def read_task(typing: Any, record: Any) -> Any:
    """Read every field of a record; those that are not used cost nothing."""
    task = record.task

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        members = []
        for (name, field), member in zip(FIELDS[record.kind].items(), task.types, strict=True):
            word = builder.load(_word(builder, args[0], OFFSETS[name]))
            if isinstance(field, Array):
                span = cgutils.create_struct_proxy(member)(context, builder)
                span.data = builder.inttoptr(word, span.data.type)
                span.size = builder.load(_word(builder, args[0], OFFSETS[name] + 1))
                members.append(span._getvalue())
            elif member == types.float64:
                members.append(builder.bitcast(word, ir.DoubleType()))
            elif member == types.boolean:
                members.append(builder.trunc(word, ir.IntType(1)))
            else:
                members.append(word)
        return context.make_tuple(builder, task, members)

    return task(record), build


@intrinsic
def move_record(typing: Any, record: Any, begin: Any, count: Any, words_out: Any) -> Any:
    """Write to an int64 array the record of `count` rows from `begin` on."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source, first, rows, array = args
        target = context.make_array(words_out)(context, builder, array).data
        cgutils.raw_memcpy(builder, target, source, _WORD(words_of(record.kind)), 8)

        def number(name: str) -> Any:
            return builder.load(_word(builder, source, OFFSETS[name]))

        masked = builder.select(
            builder.trunc(number("masks_rows"), ir.IntType(1)), number("classes"), _WORD(0)
        )
        per_row = {
            Rows.ONE: _WORD(1),
            Rows.CLASSES: number("classes"),
            Rows.ENTRIES: number("entries"),
            Rows.MASKED: masked,
        }
        for name, field in FIELDS[record.kind].items():
            if not isinstance(field, Array) or field.per_row == Rows.ALL:
                continue
            stride = per_row[field.per_row]
            itemsize = record.dtype_of(field).bitwidth // 8
            size = builder.load(_word(builder, source, OFFSETS[name] + 1))
            moves = builder.and_(
                builder.icmp_signed("!=", size, _WORD(0)),
                builder.icmp_signed("!=", stride, _WORD(0)),
            )
            address = number(name)
            passed = builder.mul(builder.mul(first, stride), _WORD(itemsize))
            address = builder.select(moves, builder.add(address, passed), address)
            size = builder.select(moves, builder.mul(rows, stride), size)
            builder.store(address, _word(builder, target, OFFSETS[name]))
            builder.store(size, _word(builder, target, OFFSETS[name] + 1))
        return context.get_dummy_value()

    return types.none(record, types.intp, types.intp, words_out), build


@intrinsic
def point(typing: Any, words: Any, offset: Any, span: Any) -> Any:
    """Point the array at a word of a record, which is an int64 array, to a span."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        record = context.make_array(words)(context, builder, args[0]).data
        at = builder.gep(record, [args[1]], inbounds=True)
        view = cgutils.create_struct_proxy(span)(context, builder, value=args[2])
        builder.store(builder.ptrtoint(view.data, _WORD), at)
        builder.store(view.size, builder.gep(at, [_WORD(1)], inbounds=True))
        return context.get_dummy_value()

    return types.none(words, types.intp, span), build


@intrinsic
def address_of_words(typing: Any, words: Any) -> Any:
    """The address of the elements of an array, which must be held."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(words)(context, builder, args[0]).data
        return builder.ptrtoint(data, _WORD)

    return types.intp(words), build


def rows_signature(record: Record) -> Any:
    """Return the signature of what evaluates a block of rows of a record."""
    return types.none(record, types.intp, types.intp, types.intp, Span(types.int64))


_SOME_RECORD = Record(Task, types.float32)
"""Records of every kind are passed alike."""


def _call(context: Any, builder: Any, result: Any, callee: Any, args: Any, kinds: Any) -> Any:
    """Call compiled code by its address args[0], for a record by its address args[1]."""
    function = context.call_conv.get_function_type(result, callee)
    pointer = builder.inttoptr(args[0], function.as_pointer())
    operands = [builder.inttoptr(args[1], _WORD.as_pointer())]
    for value, kind in zip(args[2:], kinds[2:], strict=True):
        is_array = isinstance(kind, types.Array)
        operands.append(span_of(context, builder, kind, value) if is_array else value)
    _, returned = context.call_conv.call_function(builder, pointer, result, callee, operands)
    return returned


@intrinsic
def call_rows(
    typing: Any, address: Any, record: Any, inner: Any, first: Any, last: Any, words: Any
) -> Any:
    """Call a function of `rows_signature` by its address, for a record by its address.

    A loop is a second's work for the compiler and a block's function ten: so the latter is
    compiled once a type, and serial and parallel loops are handed its address.
    """
    signature = types.none(types.intp, types.intp, types.intp, types.intp, types.intp, words)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        callee = rows_signature(_SOME_RECORD)
        _call(context, builder, types.none, callee.args, args, sig.args)
        return context.get_dummy_value()

    return signature, build


def weigh_signature(record: Record) -> Any:
    """Return the signature of what checks and weighs a block of rows of a record."""
    return types.intp(record, types.intp, types.intp, Span(types.int64), Span(types.uint8))


@intrinsic
def call_weigh(
    typing: Any, address: Any, record: Any, first: Any, last: Any, words: Any, faults: Any
) -> Any:
    """Call a function of `weigh_signature` by its address, for a record by its address."""
    signature = types.intp(types.intp, types.intp, types.intp, types.intp, words, faults)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        callee = weigh_signature(_SOME_RECORD)
        return _call(context, builder, types.intp, callee.args, args, sig.args)

    return signature, build


@intrinsic
def write_number(typing: Any, record: Any, offset: Any, value: Any) -> Any:
    """Write a float64 to a word of a record by its address."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = _word_at(builder, builder.inttoptr(args[0], _WORD.as_pointer()), args[1])
        builder.store(builder.bitcast(args[2], _WORD), at)
        return context.get_dummy_value()

    return types.none(types.intp, types.intp, types.float64), build
