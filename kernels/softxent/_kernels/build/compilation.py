"""Compilation and cache of kernels: decided here and nowhere else.

No fastmath: reassociation and assumptions about NaN or infinity would change bits. Division
follows IEEE 754 (`error_model="numpy"`).

Machine code is cached in a directory named after a hash of all kernel sources, numba and
llvmlite, because numba itself looks at the file of the outermost function only.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.registry import cpu_target

KERNELS = Path(__file__).parents[1]
"""The folder of all kernel sources."""

compile_events = 0
"""How many kernels this process compiled because no cached machine code was found."""


# Never called from Python: the wrappers would be a quarter of the compiler's work.
_UNWRAPPED: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def inlined(function: Callable[..., Any]) -> Any:
    """Mark a building block: typed where it is called, and always inlined there."""
    return numba.njit(function, forceinline=True, error_model="numpy", nogil=True, **_UNWRAPPED)


def shared(function: Callable[..., Any]) -> Any:
    """Mark a function that several kernels call and none inlines: compiled once a process."""
    return numba.njit(function, error_model="numpy", nogil=True)


def kernel(function: Callable[..., Any], signature: Any, *, parallel: bool = False) -> Any:
    """Compile `function` for one signature, or load its machine code from the cache."""
    global compile_events
    dispatcher = numba.njit(function, parallel=parallel, error_model="numpy", nogil=True)
    dispatcher._cache = _cache(function, signature, parallel)
    dispatcher.compile(signature)
    dispatcher.disable_compile()
    compile_events += sum(dispatcher.stats.cache_misses.values())
    return dispatcher


def callback(function: Callable[..., Any], signature: Any) -> Any:
    """Compile `function` for callers in C, which its attribute `address` is for; it is not cached.

    It must outlive them, and neither raise nor touch objects of Python's.
    """
    return numba.cfunc(signature)(function)


def address_of(dispatcher: Any) -> int:
    """Return where the machine code of a kernel begins."""
    (compiled,) = dispatcher.overloads.values()
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))


def entry_of(dispatcher: Any) -> Callable[..., Any]:
    """Return the function for Python of a kernel's one signature.

    It takes its arguments as that signature says, unchecked; to look at their types took 1 us.
    """
    (compiled,) = dispatcher.overloads.values()
    entry: Callable[..., Any] = compiled.entry_point
    return entry


@functools.cache
def cache_directory() -> Path:
    """Return the first directory for machine code that is complete or can be written to.

    Beside the sources, else under the user's cache directory, else a temporary one. One that holds
    every kernel for this processor is never written to, so it may be read-only: an image's.
    """
    candidates = (
        KERNELS / "__pycache__",
        Path(os.path.expanduser("~")) / ".cache" / "softxent",
    )
    for parent in candidates:
        directory = parent / _key()
        if (directory / complete_stamp()).exists():
            return directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=directory).close()
        except OSError:
            continue
        return directory
    return Path(tempfile.mkdtemp(prefix="softxent-"))


@functools.cache
def complete_stamp() -> str:
    """Return the name of the file that says that every kernel for this processor is there."""
    target = str(cpu_target.target_context.codegen().magic_tuple())
    return f"complete-{hashlib.sha256(target.encode()).hexdigest()[:16]}"


@functools.cache
def _key() -> str:
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for source in sorted(KERNELS.rglob("*.py")):
        digest.update(source.relative_to(KERNELS).as_posix().encode())
        digest.update(source.read_bytes())
    return f"kernels-{digest.hexdigest()[:16]}"


class _Locator(_CacheLocator):
    """Locator of the files of a kernel in `cache_directory()`, whose name is the stamp."""

    flavour = ""

    def __init__(self, py_func: Callable[..., Any], py_file: str) -> None:
        self._py_func = py_func
        self._py_file = py_file

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator:
        return cls(py_func, py_file)

    def get_cache_path(self) -> str:
        return str(cache_directory())

    def get_source_stamp(self) -> str:
        return _key()

    def get_disambiguator(self) -> str:
        return self.flavour


def _cache(function: Callable[..., Any], signature: Any, parallel: bool) -> FunctionCache:
    """Return a cache with files for this signature alone.

    numba's own key leaves out whether a function was compiled with parallel=True, and processes
    that add signatures to one index at the same time lose each other's.
    """
    flavour = hashlib.sha256(f"{signature} {parallel}".encode()).hexdigest()[:16]
    locator = type("Locator", (_Locator,), {"flavour": flavour})
    implementation = type("Impl", (CompileResultCacheImpl,), {"_locator_classes": [locator]})
    cache: FunctionCache = type("Cache", (FunctionCache,), {"_impl_class": implementation})(
        function
    )
    return cache
