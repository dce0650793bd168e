"""Which of numba's threading layers this machine has."""

from __future__ import annotations

import importlib

MODULES = {"omp": "omppool", "workqueue": "workqueue", "tbb": "tbbpool"}


def layers() -> list[str]:
    """Return the threading layers that can be loaded here."""
    found = []
    for layer, module in MODULES.items():
        try:
            importlib.import_module(f"numba.np.ufunc.{module}")
        except ImportError:
            continue
        found.append(layer)
    return found
