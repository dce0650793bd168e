"""The inputs of an Open Inference Protocol request, as its JSON describes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from softxent.errors import RowsError, TensorError, named_rows
from softxent.evaluations import Evaluation
from softxent_client.wire import json_reader
from softxent_client.wire.errors import MalformedBodyError, check_size
from softxent_client.wire.json_digits import digits_of_document
from softxent_client.wire.limits import Limits
from softxent_client.wire.oip_data import Lifted
from softxent_client.wire.oip_document import member, natural, objects, refuse_unknown, required
from softxent_client.wire.oip_types import DATATYPES, NAMES, PLACE, Placed, Region
from softxent_client.wire.schema import (
    DTYPES,
    MAX_BYTES,
    MAX_RANK,
    REQUEST,
    SHOWN,
    Array,
    Field,
    Schema,
)

Shape = tuple[int, ...]

_SOURCES = ("data", "binary_data_size", "shared_memory_region")
_PARAMETERS = ("binary_data_size", *PLACE, "content_type")


@dataclass(frozen=True)
class Following:
    """An input among the bytes that follow the JSON, and how many of them come before it."""

    dtype: np.dtype[Any]
    shape: Shape
    at: int

    @property
    def ndim(self) -> int:
        """Return how many dimensions it has."""
        return len(self.shape)


Input = Array | Following | Placed


class Inputs:
    """Reader of the inputs in their order, those of bytes one after another."""

    def __init__(
        self,
        text: bytes,
        available: int,
        evaluation: Evaluation,
        limits: Limits,
        lifted: Lifted | None = None,
    ) -> None:
        self._text = text
        self._lifted = lifted
        self._available = available
        self._at = 0
        self._model = evaluation.name
        self._schema: Schema = REQUEST(evaluation=evaluation)
        self._limits = limits

    def read(self, document: Mapping[str, Any]) -> dict[str, Input]:
        """Return the inputs by name.

        Raises:
            SoftxentError: as `oip_reader.decode`.
        """
        entries = objects(document, "inputs", "the request")
        check_size(len(entries), "tensors", self._limits.tensors, "the number of inputs")
        shapes = [self._shape_of_data(entry) for entry in entries]
        plain = self._is_plain(document, entries, shapes)
        inputs: dict[str, Input] = {}
        for index, (entry, given) in enumerate(zip(entries, shapes, strict=True)):
            name = required(entry, "name", str, "an input")
            if name in inputs:
                raise MalformedBodyError(f"input {name[:SHOWN]!r} is given twice", field=name)
            inputs[name] = self._input(name, entry, given, index, plain=plain)
        if self._at != self._available:
            raise MalformedBodyError(
                f"unexpected additional input data for model {self._model!r}: "
                f"{self._available - self._at} bytes are left over"
            )
        self._check(inputs)
        return inputs

    def _shape_of_data(self, entry: Mapping[str, Any]) -> Shape | None:
        data = entry.get("data")
        if data is None or self._lifted is not None:
            return None
        return json_reader.shape_of(str(entry.get("name"))[:SHOWN], data, self._limits)

    def _is_plain(
        self, document: Mapping[str, Any], entries: list[dict[str, Any]], shapes: list[Shape | None]
    ) -> bool:
        """Tell whether all brackets are those of shapes, so that none hides among numbers."""
        lists = sum(isinstance(entry.get("shape"), list) for entry in entries)
        lists += sum(isinstance(document.get(name), list) for name in ("inputs", "outputs"))
        lists += sum(json_reader.brackets(shape) for shape in shapes if shape is not None)
        return lists == self._text.count(b"[")

    def _check(self, inputs: Mapping[str, Input]) -> None:
        self._schema.check_names(inputs)
        self._schema.check_ranks(inputs)
        placed = sum(one.region.size for one in inputs.values() if isinstance(one, Placed))
        check_size(
            placed + len(self._text) + self._available,
            "binary_bytes",
            self._limits.binary_bytes,
            "the size of all inputs in bytes",
        )

    def _input(
        self, name: str, entry: Mapping[str, Any], given: Shape | None, index: int, *, plain: bool
    ) -> Input:
        owner = f"input {name[:SHOWN]!r}"
        dtype = self._dtype(name, required(entry, "datatype", str, owner))
        shape = _shape(name, required(entry, "shape", list, owner), dtype.itemsize)
        parameters = member(entry, "parameters", dict, owner) or {}
        refuse_unknown(parameters, _PARAMETERS, owner)
        source = _only_source(entry, parameters)
        if source == "data":
            wide = Field((), np.dtype(np.int64) if dtype.kind in "iu" else dtype)
            if self._lifted is not None:
                array = self._lifted.array(name, entry["data"], wide)
                _check_given(name, array.shape, shape)
            else:
                assert given is not None
                _check_given(name, given, shape)
                digits = partial(digits_of_document, self._text, "inputs", index, "data")
                array = json_reader.array_of(name, entry["data"], given, wide, digits, plain=plain)
            return narrowed(name, array, dtype).reshape(shape)
        if source == "binary_data_size":
            size = _sized(name, parameters, "binary_data_size", dtype, shape)
            return self._of_bytes(name, size, dtype, shape)
        _sized(name, parameters, "shared_memory_byte_size", dtype, shape)
        return Placed(dtype, shape, region_of(parameters, owner))

    def _dtype(self, name: str, datatype: str) -> np.dtype[Any]:
        allowed = self._schema.field(name).dtypes
        if DATATYPES.get(datatype) not in allowed:
            known = ", ".join(NAMES[one] for one in allowed)
            raise TensorError(
                f"{name} has datatype {datatype[:SHOWN]!r}, expected one of {known}", field=name
            )
        return DTYPES[DATATYPES[datatype]]

    def _of_bytes(self, name: str, size: int, dtype: np.dtype[Any], shape: Shape) -> Following:
        missing = self._at + size - self._available
        if missing > 0:
            raise MalformedBodyError(
                f"unexpected size for input {name!r}, expecting {missing} additional bytes for "
                f"model {self._model!r}",
                field=name,
            )
        self._at += size
        return Following(dtype, shape, self._at - size)


def _check_given(name: str, given: Shape, shape: Shape) -> None:
    if given != shape and given != (math.prod(shape),):
        raise MalformedBodyError(
            f"data of {name} has shape {list(given)}, neither flat nor the shape {list(shape)} "
            "that is said",
            field=name,
        )


def narrowed(name: str, wide: Array, dtype: np.dtype[Any]) -> Array:
    """Return integers in their own type; floats have theirs already."""
    if wide.dtype == dtype:
        return wide
    narrow = wide.astype(dtype)
    lost = narrow.reshape(-1) != wide.reshape(-1)
    if dtype.kind == "u":
        lost |= wide.reshape(-1) < 0
    if lost.any():
        raise RowsError(
            f"{name} holds integers that {dtype} cannot hold", field=name, **named_rows(lost, wide)
        )
    return narrow


def _shape(name: str, shape: list[Any], itemsize: int) -> Shape:
    # type() and not isinstance(): true is an int to Python.
    if not all(type(n) is int and n >= 0 for n in shape):
        raise MalformedBodyError(
            f"shape of {name} must be an array of integers that are not negative", field=name
        )
    if len(shape) > MAX_RANK:
        raise TensorError(f"{name} has {len(shape)} dimensions, at most {MAX_RANK}", field=name)
    if math.prod(n for n in shape if n) * itemsize > MAX_BYTES:
        raise MalformedBodyError(
            f"the shape of {name} causes total element count to exceed maximum size", field=name
        )
    return tuple(shape)


def _only_source(entry: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    given = [
        name for name in _SOURCES if (entry if name == "data" else parameters).get(name) is not None
    ]
    if len(given) != 1:
        found = "no field is set" if not given else f"set {' and '.join(map(repr, given))}"
        raise MalformedBodyError(
            "Input must set only one of the following fields: 'data', 'binary_data_size' in "
            f"'parameters', 'shared_memory_region' in 'parameters'. But {found}",
            field=str(entry["name"]),
        )
    return given[0]


def _sized(
    name: str,
    parameters: Mapping[str, Any],
    which: str,
    dtype: np.dtype[Any],
    shape: Shape,
) -> int:
    size = natural(parameters, which, f"input {name!r}")
    needed = math.prod(shape) * dtype.itemsize
    if size != needed:
        raise MalformedBodyError(
            f"{name} needs {needed} bytes by its shape and datatype; its {which} is {size}",
            field=name,
        )
    return needed


def region_of(parameters: Mapping[str, Any], owner: str) -> Region:
    """Return where in shared memory a tensor lies, as its parameters say.

    Raises:
        MalformedBodyError: they do not.
    """
    size = natural(parameters, "shared_memory_byte_size", owner)
    if size is None:
        raise MalformedBodyError(
            f"shared_memory_byte_size of {owner} is missing", field="shared_memory_byte_size"
        )
    offset = natural(parameters, "shared_memory_offset", owner)
    return Region(required(parameters, "shared_memory_region", str, owner), offset or 0, size)
