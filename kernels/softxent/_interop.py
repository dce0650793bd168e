"""Arrays, exceptions and services of other libraries, for the adapters."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from softxent.errors import OptionError, SoftxentError, TensorError
from softxent.results import CrossEntropyResult, Floats

OPTIONS: dict[str, type[Any]] = {
    "reduction": str,
    "ignore_index": int,
    "label_smoothing": float,
    "smoothing": str,
    "z_loss": float,
    "softcap": float,
    "temperature": float,
    "tail": str,
    "hard_weight": float,
    "denominator": float,
    "mean_over": str,
    "scale": float,
    "non_finite": str,
    "empty": str,
}
"""The options of an adapter's loss and what they hold: all but those that choose outputs."""


class ThirdDerivativeError(RuntimeError):
    """A third derivative of the loss was asked for; PyTorch raises its kind in such a place too."""

    def __init__(self) -> None:
        """Say what there is instead."""
        super().__init__(
            "softxent evaluates no third derivatives of the loss, only gradient and Hessian;"
            " take one derivative less, or use the framework's own loss"
        )


class Evaluator(Protocol):
    """Whatever evaluates: `softxent` itself or a `softxent_client.Client`."""

    @property
    def cross_entropy(self) -> Callable[..., CrossEntropyResult]:
        """Return what does as `softxent.cross_entropy`."""

    @property
    def hessian_vector_product(self) -> Callable[..., Floats]:
        """Return what does as `softxent.hessian_vector_product`."""


def check_service(service: Any) -> None:
    """Refuse what does not evaluate in the place of this process.

    Raises:
        OptionError: `service` is neither None nor a client whose methods return results.
    """
    method = getattr(service, "cross_entropy", None)
    if service is not None and (not callable(method) or inspect.iscoroutinefunction(method)):
        raise OptionError(
            f"service must be a softxent_client.Client or None, not {type(service).__name__}",
            field="service",
        )


def refuse_missing(adapter: str, error: ImportError, install: str) -> NoReturn:
    """Raise ImportError that says what an adapter needs."""
    raise ImportError(
        f"softxent.{adapter} needs {error.name}, which is not installed: run pip install {install}",
        name=error.name,
    ) from None


class ErrorsAlso:
    """Context in which the library's errors can be caught as another library's too.

    It holds nothing of a call, so that one object serves all; a generator would take four
    microseconds each time.
    """

    __slots__ = ("_kinds",)

    def __init__(self, kinds: Mapping[type[SoftxentError], type[Exception]]) -> None:
        """Take the other library's errors by ours; the first that fits counts."""
        self._kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if isinstance(error, SoftxentError):
            self.mark(error)

    def mark(self, error: SoftxentError) -> None:
        """Make an error the other library's too."""
        ours: Any = type(error)
        theirs: Any = next((t for k, t in self._kinds.items() if isinstance(error, k)), None)
        if theirs is not None and not isinstance(error, theirs):
            error.__class__ = _both(ours, theirs)


@functools.cache
def _both(ours: Any, theirs: Any) -> type[SoftxentError]:
    return type(ours.__name__, (ours, theirs), {"__module__": ours.__module__})


def as_numpy(name: str, value: Any) -> Any:
    """Return an array of another library as NumPy's, in its own memory; anything else as it is.

    PyTorch's CPU tensors of any dtype, then whatever has `__array__`, then DLPack on the CPU.

    Raises:
        TensorError: the array lies on another device, or NumPy cannot take it.
    """
    if isinstance(value, (np.ndarray, np.generic, list, tuple, int, float)):
        return value
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _of_torch(name, value)
    if hasattr(value, "__array__"):
        return _exported(name, value, np.asarray)
    return _exported(name, value, np.from_dlpack) if hasattr(value, "__dlpack__") else value


def _of_torch(name: str, tensor: Any) -> npt.NDArray[Any]:
    if not tensor.is_cpu:
        raise TensorError(
            f"{name} is on {tensor.device}; softxent evaluates on the CPU: pass {name}.cpu()",
            field=name,
        )
    detached = tensor.detach()
    torch = sys.modules["torch"]
    if detached.dtype == torch.bfloat16:
        return np.asarray(detached.view(torch.uint16).numpy().view(_bfloat16(name)))
    return _exported(name, detached, lambda value: value.numpy())


def _bfloat16(name: str) -> Any:
    try:
        import ml_dtypes
    except ImportError:
        raise TensorError(
            f"{name} is bfloat16, which needs the package ml_dtypes; run: pip install ml-dtypes",
            field=name,
        ) from None
    return ml_dtypes.bfloat16


def _exported(name: str, value: Any, export: Any) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = export(value)
    except (TypeError, RuntimeError, BufferError) as error:
        raise TensorError(
            f"{name}, a {type(value).__name__}, cannot be read as an array: {error}", field=name
        ) from None
    return array
