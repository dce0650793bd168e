"""XLA's foreign functions: handlers that evaluate in the buffers XLA hands over, without a copy.

The structures are those of `xla/ffi/api/c_api.h`, version 0.3, as far as they are read. A handler
is entered from XLA's threads; it holds the interpreter's lock only until the kernels run.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import json
import math
import weakref
from collections.abc import Callable, Sequence
from ctypes import POINTER, Structure, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p
from typing import Any

import jax
import ml_dtypes
import numpy as np
import numpy.typing as npt

import softxent
from softxent._interop import Evaluator

Array = npt.NDArray[Any]

_METADATA = 1
_API_VERSION = (0, 3)
_STRING = 4
_INVALID_ARGUMENT, _INTERNAL = 3, 13
_DTYPES: dict[int, Any] = {
    1: np.bool_,
    **{2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64},
    **{6: np.uint8, 7: np.uint16, 8: np.uint32, 9: np.uint64},
    **{10: np.float16, 11: np.float32, 12: np.float64, 16: ml_dtypes.bfloat16},
}
_services: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


class _Head(Structure):
    _fields_ = (("struct_size", c_size_t), ("extension", c_void_p))


class _ApiVersion(Structure):
    _fields_ = (*_Head._fields_, ("major", c_int), ("minor", c_int))


class _Metadata(Structure):
    _fields_ = (("struct_size", c_size_t), ("api_version", _ApiVersion), ("traits", c_uint32))


class _Extension(Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("type", c_int),
        ("next", c_void_p),
        ("metadata", POINTER(_Metadata)),
    )


class _Span(Structure):
    _fields_ = (("data", c_void_p), ("size", c_size_t))


class _Buffer(Structure):
    _fields_ = (
        *_Head._fields_,
        ("dtype", c_int),
        ("data", c_void_p),
        ("rank", c_int64),
        ("dims", POINTER(c_int64)),
    )


class _Buffers(Structure):
    _fields_ = (
        *_Head._fields_,
        ("size", c_int64),
        ("types", POINTER(c_int)),
        ("buffers", POINTER(POINTER(_Buffer))),
    )


class _Attributes(Structure):
    _fields_ = (
        *_Head._fields_,
        ("size", c_int64),
        ("types", POINTER(c_int)),
        ("names", POINTER(POINTER(_Span))),
        ("values", POINTER(POINTER(_Span))),
    )


class _CallFrame(Structure):
    _fields_ = (
        *_Head._fields_,
        ("api", c_void_p),
        ("context", c_void_p),
        ("stage", c_int),
        ("arguments", _Buffers),
        ("results", _Buffers),
        ("attributes", _Attributes),
    )


class _ErrorArguments(Structure):
    _fields_ = (*_Head._fields_, ("message", c_char_p), ("code", c_int))


_CreateError = ctypes.CFUNCTYPE(c_void_p, POINTER(_ErrorArguments))


class _Api(Structure):
    _fields_ = (
        *_Head._fields_,
        ("version", _ApiVersion),
        ("internal", c_void_p),
        ("create_error", _CreateError),
    )


_Handler = ctypes.CFUNCTYPE(c_void_p, POINTER(_CallFrame))


def service_id(service: Evaluator | None) -> int:
    """Return the number by which handlers find a service; 0 is this process."""
    if service is None:
        return 0
    _services[id(service)] = service
    return id(service)


def _array(buffer: _Buffer) -> Array:
    """Return an array in a buffer's memory."""
    shape = tuple(buffer.dims[: buffer.rank])
    dtype = np.dtype(_DTYPES[buffer.dtype])
    nbytes = math.prod(shape) * dtype.itemsize
    if not nbytes:
        return np.empty(shape, dtype)
    memory = (ctypes.c_ubyte * nbytes).from_address(buffer.data)
    array: Array = np.frombuffer(memory, np.uint8).view(dtype).reshape(shape)
    return array


def _arrays(buffers: _Buffers) -> list[Array]:
    return [_array(buffers.buffers[i].contents) for i in range(buffers.size)]


@functools.lru_cache(maxsize=256)
def _read_call(text: bytes) -> dict[str, Any]:
    """Return the call that a handler's only attribute describes; see `softxent.jax`."""
    call: dict[str, Any] = json.loads(text)
    return call


def _call(frame: _CallFrame) -> dict[str, Any]:
    span = frame.attributes.values[0].contents
    return _read_call(ctypes.string_at(span.data, span.size))


def _members(arrays: Sequence[Array], ranks: Sequence[int]) -> list[tuple[Array, ...]]:
    """Return the arrays of each member of a batch: those of `jax.vmap` come first in a shape."""
    leading = arrays[0].shape[: arrays[0].ndim - ranks[0]]
    places: Any = itertools.product(*map(range, leading))
    return [tuple(array[(*place, ...)] for array in arrays) for place in places]


def _write_loss(call: dict[str, Any], inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
    keywords = dict(zip(call["names"], inputs, strict=True))
    options = {**call["options"], "outputs": ("loss", "gradient")[: len(outputs)]}
    if call["service"]:
        result = _services[call["service"]].cross_entropy(**keywords, **options)
        for name, output in zip(options["outputs"], outputs, strict=True):
            output[...] = getattr(result, name)
        return
    names = zip(options["outputs"], outputs, strict=True)
    out = {name: output for name, output in names if output.ndim or name != "loss"}
    if options["reduction"] != "none":
        out.pop("loss", None)
    result = softxent.cross_entropy(**keywords, **options, out=out)
    if "loss" not in out:
        outputs[0][...] = result.loss


def _write_product(call: dict[str, Any], inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
    keywords = dict(zip(("vectors", *call["names"]), inputs, strict=True))
    if call["service"]:
        service = _services[call["service"]]
        outputs[0][...] = service.hessian_vector_product(**keywords, **call["options"])
    else:
        softxent.hessian_vector_product(**keywords, **call["options"], out=outputs[0])


def _handle(
    write: Callable[[dict[str, Any], Sequence[Array], Sequence[Array]], None], pointer: Any
) -> int | None:
    """Answer a call from XLA: what the handler is built for, or an evaluation."""
    frame = pointer.contents
    if frame.extension:
        extension = ctypes.cast(frame.extension, POINTER(_Extension)).contents
        if extension.type == _METADATA:
            version = extension.metadata.contents.api_version
            version.major, version.minor = _API_VERSION
            return None
    try:
        call = _call(frame)
        inputs, outputs = _arrays(frame.arguments), _arrays(frame.results)
        arrays = [*inputs, *outputs]
        for member in _members(arrays, call["ranks"]):
            write(call, member[: len(inputs)], member[len(inputs) :])
    except softxent.SoftxentError as error:
        return _error(frame, _INVALID_ARGUMENT, str(error))
    except Exception as error:  # C has no other way to learn of it.
        return _error(frame, _INTERNAL, f"{type(error).__name__}: {error}")
    return None


def _error(frame: _CallFrame, code: int, message: str) -> int | None:
    api = ctypes.cast(frame.api, POINTER(_Api)).contents
    size = _ErrorArguments.code.offset + ctypes.sizeof(c_int)
    arguments = _ErrorArguments(size, None, message.encode(), code)
    pointer: int | None = api.create_error(ctypes.byref(arguments))
    return pointer


_HANDLERS = {
    name: _Handler(functools.partial(_handle, write))
    for name, write in (
        ("softxent_cross_entropy", _write_loss),
        ("softxent_hessian_vector_product", _write_product),
    )
}
"""Kept for as long as the process: XLA holds their addresses."""

for _name, _handler in _HANDLERS.items():
    jax.ffi.register_ffi_target(
        _name, jax.ffi.pycapsule(ctypes.cast(_handler, c_void_p)), platform="cpu"
    )
