"""Writes the published fixtures and their index: `python make_fixtures.py`.

Run with `kernels` and `service` importable, as an installed checkout has them; docs/fixtures.md
describes the files. It takes a few seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fixture_answers import bounds, expected
from fixture_calls import Fixture, fixtures

import softxent
from softxent import Options
from softxent_client.wire import safetensors_form
from softxent_client.wire.safetensors_form import ALIGNMENT, LENGTH_BYTES, METADATA
from softxent_client.wire.schema import DTYPE_NAMES

FOLDER = Path(__file__).resolve().parents[2] / "service/softxent_service/fixtures"
INDEX = "index.json"

Json = dict[str, Any]


def file_of(fixture: Fixture) -> bytes:
    """Return the file of a call: inputs, answers, and a header that says the rest."""
    case = fixture.case
    inputs = case.tensors | ({} if case.vectors is None else {"vectors": case.vectors})
    answers = expected(case, sums=fixture.evaluation == "cross_entropy")
    head, *data = safetensors_form.encode(inputs | answers)
    header = {METADATA: metadata(fixture), **json.loads(bytes(head[LENGTH_BYTES:]))}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(LENGTH_BYTES + len(text)) % ALIGNMENT)
    return b"".join([len(text).to_bytes(LENGTH_BYTES, "little"), text, *data])


def metadata(fixture: Fixture) -> dict[str, str]:
    """Return what the header says beside the tensors: text by name."""
    options = {f"option.{name}": text for name, text in option_texts(fixture).items()}
    limits = {f"bound.{name}": f"{ulp:g}" for name, ulp in bounds(fixture.case).items()}
    if fixture.evaluation != "cross_entropy":
        limits.pop("bound.loss_sum", None)
    return {
        "name": fixture.name,
        "description": fixture.description,
        "evaluation": fixture.evaluation,
        "numerics": str(softxent.NUMERICS_VERSION),
        **options,
        **limits,
    }


def option_texts(fixture: Fixture) -> dict[str, str]:
    """Return the options as query parameters; a product has no `outputs`."""
    texts = Options(**fixture.case.product_options).to_text()
    if fixture.evaluation == "hessian_vector_product":
        return texts
    return {"outputs": ",".join(fixture.case.outputs), **texts}


def entry_of(fixture: Fixture, content: bytes) -> Json:
    """Return what the index says of a file."""
    logits = fixture.case.logits
    return {
        "name": fixture.name,
        "description": fixture.description,
        "evaluation": fixture.evaluation,
        "options": option_texts(fixture),
        "dtype": DTYPE_NAMES[logits.dtype],
        "shape": list(logits.shape),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def made() -> Iterator[tuple[Json, bytes]]:
    """Yield every file with its entry in the index."""
    for fixture in fixtures():
        content = file_of(fixture)
        yield entry_of(fixture, content), content


def index_of(entries: list[Json]) -> str:
    """Return the text of the index."""
    index = {"numerics": softxent.NUMERICS_VERSION, "fixtures": entries}
    return json.dumps(index, indent=2) + "\n"


def main() -> None:
    """Write everything anew, and nothing but that."""
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.iterdir():
        path.unlink()
    entries = []
    for entry, content in made():
        (FOLDER / f"{entry['name']}.safetensors").write_bytes(content)
        entries.append(entry)
    (FOLDER / INDEX).write_text(index_of(entries), encoding="utf-8")


if __name__ == "__main__":
    main()
