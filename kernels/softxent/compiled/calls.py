"""Calling what evaluates a block of rows by its address.

A loop is a second's work for the compiler and a block's function ten: so the latter is compiled
once a type, and serial and parallel loops are handed its address.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils

from softxent.compiled.lanes import intrinsic
from softxent.compiled.span import Span, span_of
from softxent.compiled.task import Task, shard_task_fields, span_types, task_fields


def rows_signature(fields: Any) -> Any:
    """Return the signature of what evaluates a block of rows of a task of these fields."""
    words = Span(types.int64)
    return types.none(span_types(fields), types.intp, types.intp, types.intp, words)


def _as_wanted(context: Any, builder: Any, value: Any, have: Any, wanted: Any) -> Any:
    """Return `value` as another type; arrays, which the caller holds, as spans."""
    if not isinstance(have, types.Array):
        return context.cast(builder, value, have, wanted)
    assert (Span(have.dtype), have.layout) == (wanted, "C")
    return span_of(context, builder, have, value)


@intrinsic
def call_rows(
    typing: Any, address: Any, inner: Any, task: Any, first: Any, last: Any, words: Any
) -> Any:
    """Call a function of `rows_signature` by its address; `task` is a tuple of its fields."""
    elements = task.types[0].dtype
    is_task = len(task.types) == len(Task._fields)
    callee = rows_signature((task_fields if is_task else shard_task_fields)(elements))

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        function = context.call_conv.get_function_type(types.none, callee.args)
        pointer = builder.inttoptr(args[0], function.as_pointer())
        fields = [
            _as_wanted(context, builder, value, have, wanted)
            for value, have, wanted in zip(
                cgutils.unpack_tuple(builder, args[2]),
                task.types,
                callee.args[0].types,
                strict=True,
            )
        ]
        words_out = _as_wanted(context, builder, args[5], words, callee.args[4])
        task_value = context.make_tuple(builder, callee.args[0], fields)
        operands = [task_value, args[1], args[3], args[4], words_out]
        context.call_conv.call_function(builder, pointer, types.none, callee.args, operands)
        return context.get_dummy_value()

    return types.none(types.intp, types.intp, task, types.intp, types.intp, words), build
