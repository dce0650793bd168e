"""A handler of SIGBUS, which a processor raises where a mapped file has lost its pages.

Whoever shrinks a file takes pages out of every mapping of it, at any moment and without a word:
looking at the size before does not help, and the kernels, which run on threads of their own, cannot
be told to expect an exception. So the handler puts zeros in the place of what is lost, takes note,
and lets the thread go on; who watches the mapping looks at the note afterwards. It is machine code
that calls `mmap` and touches no object of Python's, so any thread may run it at any time.
"""

from __future__ import annotations

import ctypes
import mmap
import signal
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types

from softxent._kernels.build.compilation import callback
from softxent._kernels.simd.lanes import intrinsic

PLACES = 1024
"""How many mappings can be watched at a time."""

BEGIN, END, LOST = range(3)
"""Columns of the table of watched mappings."""

SUPPORTED = sys.platform == "linux" and sys.maxsize > 2**32
"""Whether structures lie where they are looked for here, which they do on 64-bit Linux."""

_WORD = 8
_ADDRESS = 16
"""Where `siginfo_t` holds the address at fault."""

_SA_SIGINFO = 4
_ZEROS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
_FIXED = 0x10
_WRITABLE = mmap.PROT_READ | mmap.PROT_WRITE

_mmap: Any = types.ExternalFunction(
    "mmap",
    types.intp(types.intp, types.intp, types.int32, types.int32, types.int32, types.intp),
)
_sigaction: Any = types.ExternalFunction(
    "sigaction", types.int32(types.int32, types.intp, types.intp)
)


class _Action(ctypes.Structure):
    """The C library's `struct sigaction`."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


def install() -> npt.NDArray[np.int64]:
    """Make this process survive what watched mappings lose; return the table that says which.

    A row of it is [begin, end, lost]: addresses that are watched while `end` is not 0, and 1 once
    they are zeros. Everything else goes to the handler that was there before.
    """
    table = np.zeros((PLACES, 3), np.int64)
    before = _Action()
    signature = types.void(types.int32, types.intp, types.intp)
    compiled = callback(_handler(table.ctypes.data, ctypes.addressof(before)), signature)
    action = _Action(handler=compiled.address, flags=_SA_SIGINFO)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.sigaction(signal.SIGBUS, ctypes.byref(action), ctypes.byref(before)):
        raise OSError(ctypes.get_errno(), "the handler of SIGBUS cannot be installed")
    _kept.append((table, before, compiled))
    return table


_kept: list[Any] = []
"""What the handler uses by address, for as long as the process lives."""


def _handler(table: int, before: int) -> Any:
    row_size = 3 * _WORD

    def handle(number, info, _context):
        address = load_word(info + _ADDRESS)
        for place in range(PLACES):
            row = table + place * row_size
            begin, end = load_word(row + BEGIN * _WORD), load_word(row + END * _WORD)
            if begin <= address and address < end:
                store_word(row + LOST * _WORD, 1)
                if _mmap(begin, end - begin, _WRITABLE, _ZEROS | _FIXED, -1, 0) == begin:
                    return
        _sigaction(number, before, 0)

    return handle


@intrinsic
def load_word(typing: Any, address: Any) -> Any:
    """The 64-bit integer at an address."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], ir.IntType(64).as_pointer()))

    return types.int64(types.intp), build


@intrinsic
def store_word(typing: Any, address: Any, value: Any) -> Any:
    """Put a 64-bit integer at an address."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], ir.IntType(64).as_pointer()))
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), build
