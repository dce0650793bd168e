"""A target for libFuzzer: any bytes become tensors of the schema, or an error of ours.

python fuzz_decoders.py json|binary LARGEST_GROWTH [flags of libFuzzer] CORPUS
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["softxent_client", "softxent.errors"]):
    from softxent.errors import SoftxentError
    from softxent.evaluations import EVALUATIONS
    from softxent_client.wire import REQUEST, Limits, json_form, safetensors_form

LIMITS = Limits(binary_bytes=2_048, json_bytes=2_048, tensors=6, header_bytes=1_024, json_depth=8)
DTYPES = ("float32", "float64", "float16", "bfloat16")
SCHEMAS = [REQUEST(dtype, one) for one in EVALUATIONS.values() for dtype in DTYPES]
FORMS = {"json": json_form, "binary": safetensors_form}

LARGEST_BODY = 256 << 20
"""No body of these limits may ask for as much memory; nor does libFuzzer."""

WARM = 20_000
"""Calls after which the memory of the process should not grow any more."""


class Target:
    """Decodes what comes; the first byte chooses the schema."""

    def __init__(self, form: str, largest_growth: int) -> None:
        self._decode = FORMS[form].decode
        self._largest_growth = largest_growth
        self._calls = self._warm = 0
        self.decoded = 0

    def __call__(self, data: bytes) -> None:
        """Raise what is no error of ours, or where memory grows."""
        schema = SCHEMAS[(data[0] if data else 0) % len(SCHEMAS)]
        try:
            tensors = self._decode(data[1:], schema, LIMITS)
        except SoftxentError as error:
            json.dumps(error.details(), ensure_ascii=False).encode()
        else:
            assert tensors.keys() <= schema.fields.keys()
            assert sum(tensor.nbytes for tensor in tensors.values()) <= 8 * LIMITS.json_bytes
            self.decoded += 1
        self._calls += 1
        if self._calls % WARM == 0:
            self._check_memory()

    def _check_memory(self) -> None:
        held = sizes()[1]
        self._warm = self._warm or held
        sys.stderr.write(f"calls {self._calls} decoded {self.decoded} ")
        sys.stderr.write(f"grown {held - self._warm}\n")
        assert held - self._warm < self._largest_growth, "memory grows"


def sizes() -> list[int]:
    """Return how many bytes of addresses and of memory this process has."""
    return [int(pages) * 4096 for pages in Path("/proc/self/statm").read_text().split()[:2]]


def bound_memory() -> None:
    """Let one body that asks for much fail; libFuzzer's own bound counts the parent's peak."""
    most = sizes()[0] + LARGEST_BODY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    form, growth, *flags = sys.argv[1:]
    bound_memory()
    atheris.Setup([sys.argv[0], *flags], Target(form, int(growth)))
    atheris.Fuzz()
