"""Softmax cross-entropy and its gradient: exact, reproducible, at the speed of a memory copy.

Importing this package needs numpy alone; the compiled kernels load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softxent.errors import (
    EmptyReductionError,
    InputError,
    LabelError,
    NonFiniteError,
    OptionError,
    OutputBufferError,
    RowsError,
    SoftxentError,
    TensorError,
    WeightError,
)
from softxent.evaluations import OUTPUTS
from softxent.options import Options
from softxent.results import CrossEntropyResult

if TYPE_CHECKING:
    from softxent._api import (
        cross_entropy,
        hessian_vector_product,
        log_softmax,
        logsumexp,
        softmax,
    )
    from softxent.blockwise.columns import (
        class_cross_entropy,
        class_partials,
        combine_partials,
    )
    from softxent.blockwise.partials import ClassPartials
    from softxent.explanation import Explanation, explain

__version__ = "0.1.0"

NUMERICS_VERSION = 3
"""Changes whenever any bit of any result may change."""

TILE = 4096
"""Columns of a tile, the unit in which every row is evaluated."""

__all__ = [
    "NUMERICS_VERSION",
    "OUTPUTS",
    "TILE",
    "ClassPartials",
    "CrossEntropyResult",
    "EmptyReductionError",
    "Explanation",
    "InputError",
    "LabelError",
    "NonFiniteError",
    "OptionError",
    "Options",
    "OutputBufferError",
    "RowsError",
    "SoftxentError",
    "TensorError",
    "WeightError",
    "__version__",
    "class_cross_entropy",
    "class_partials",
    "combine_partials",
    "cross_entropy",
    "explain",
    "hessian_vector_product",
    "log_softmax",
    "logsumexp",
    "softmax",
]

_LAZY = {
    "cross_entropy": "softxent._api",
    "hessian_vector_product": "softxent._api",
    "log_softmax": "softxent._api",
    "logsumexp": "softxent._api",
    "softmax": "softxent._api",
    "ClassPartials": "softxent.blockwise.partials",
    "class_cross_entropy": "softxent.blockwise.columns",
    "class_partials": "softxent.blockwise.columns",
    "combine_partials": "softxent.blockwise.columns",
    "explain": "softxent.explanation",
    "Explanation": "softxent.explanation",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'softxent' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
