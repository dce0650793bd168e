"""Division of a job into blocks, from shapes and chunks alone.

Blocks of rows are whole chunks of the logits, as many as fit `BLOCK_BYTES`. Where the columns of
a chunk's rows do not fit together, they are cut as well, on tile boundaries, and evaluated in two
steps: partials of every block of columns, then its results.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from softxent import TILE, Options
from softxent_service.jobs.specification import Specification

BLOCK_BYTES = 64 << 20
"""Logits of one block; a task that is done in a tenth of a second costs a thousandth to send."""

SHARDED_OUTPUTS = ("loss", "gradient", "log_normalizer", "probabilities")
"""What can be evaluated of columns whose neighbours lie elsewhere."""


@dataclass(frozen=True)
class Plan:
    """Division of a job into blocks.

    Attributes:
        entries: length of the first dimension of the logits, which is cut.
        rows_an_entry: rows that lie in each, the product of the dimensions between it and C.
        classes: C.
        step: entries of a block.
        columns: columns of a block; C where rows are whole.
    """

    entries: int
    rows_an_entry: int
    classes: int
    step: int
    columns: int

    @property
    def blocks(self) -> int:
        """Return how many blocks of rows there are."""
        return -(-self.entries // self.step)

    @property
    def rows(self) -> int:
        """Return how many rows there are."""
        return self.entries * self.rows_an_entry

    @property
    def is_sharded(self) -> bool:
        """Whether rows are evaluated some columns at a time."""
        return self.columns < self.classes

    def entries_of(self, block: int) -> slice:
        """Return what a block has of the first dimension."""
        return slice(block * self.step, min((block + 1) * self.step, self.entries))

    def rows_of(self, block: int) -> tuple[int, int]:
        """Return the first row of a block and the row after its last."""
        entries = self.entries_of(block)
        return entries.start * self.rows_an_entry, entries.stop * self.rows_an_entry

    def columns_of(self) -> list[slice]:
        """Return the blocks of columns."""
        starts = range(0, self.classes, self.columns) if self.classes else ()
        return [slice(first, min(first + self.columns, self.classes)) for first in starts]


def make_plan(
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    itemsize: int,
    *,
    whole_rows: bool,
    block_bytes: int = BLOCK_BYTES,
) -> Plan:
    """Cut logits of a shape, which lie in chunks.

    Args:
        whole_rows: rows must not be cut, whatever their size.
    """
    entries, classes = shape[0], shape[-1]
    rows_an_entry = math.prod(shape[1:-1])
    column_bytes = max(1, rows_an_entry * itemsize)
    entry_bytes = column_bytes * max(1, classes)
    chunk = min(chunks[0], max(1, entries))
    fitting = block_bytes // entry_bytes
    whole_chunks = max(chunk, fitting - fitting % chunk)
    if fitting >= chunk or chunks[-1] >= classes or whole_rows:
        # Only rows that must stay whole, in chunks that cut them, make a chunk be decoded twice.
        again = fitting < chunk and chunks[-1] < classes
        step = max(1, fitting) if again else whole_chunks
        return Plan(entries, rows_an_entry, classes, min(step, max(1, entries)), classes)
    unit = math.lcm(TILE, min(chunks[-1], classes))
    if unit >= classes:
        unit = TILE
    columns = max(unit, block_bytes // (chunk * column_bytes) // unit * unit)
    return Plan(entries, rows_an_entry, classes, chunk, min(columns, classes))


def needs_whole_rows(specification: Specification, mask_rank: int) -> bool:
    """Whether what is asked for cannot be evaluated some columns at a time."""
    options: Options = specification.options
    return (
        bool(set(options.outputs) - set(SHARDED_OUTPUTS))
        or options.tail == "bucket"
        or (options.label_smoothing > 0 and options.smoothing == "others")
        or mask_rank > 1
        or specification.on_error == "skip"
    )
