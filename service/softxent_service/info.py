"""Report of `softxent info`."""

from __future__ import annotations

import platform
from urllib.parse import urlsplit

import llvmlite
import numba
import numpy as np

import softxent
from softxent.serving import cache_directory
from softxent_service.http.query import LOGITS_DTYPES
from softxent_service.http.readiness import load_kernels
from softxent_service.settings import Settings


def report(settings: Settings) -> dict[str, str]:
    """Return name and text of each line; loads the kernels, since only then the layer is known."""
    _, layer = load_kernels()
    return {
        "softxent": softxent.__version__,
        "numerics": str(softxent.NUMERICS_VERSION),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "dtypes": " ".join(LOGITS_DTYPES),
        "tile": f"{softxent.TILE} columns",
        "threading layer": layer,
        "machine code": str(cache_directory()),
        **{name: str(value) for name, value in settings.model_dump().items()},
        "database": _without_password(settings.database),
    }


def _without_password(database: str | None) -> str:
    """Return where a database is; who may see a screen or a report of a fault may not enter it."""
    if database is None:
        return "None"
    parts = urlsplit(database)
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"***@{place}", query="").geturl()
