"""The Dask graph of a block whose columns are cut: partials of each, then the results of each.

What a graph is run on is not known here.
"""

from __future__ import annotations

from dask.delayed import Delayed, delayed

import softxent
from softxent_service.jobs import blocks
from softxent_service.jobs.job import Job


def block_graph(job: Job, block: int) -> Delayed:
    """Return the graph that does what `blocks.evaluate_blocks` does where rows are whole.

    The graphs of two blocks share nothing: each is sent, run and forgotten alone.
    """
    numerics = softxent.NUMERICS_VERSION
    columns = job.plan.columns_of()
    partials = delayed(blocks.partials_of_columns, pure=False)
    evaluate = delayed(blocks.evaluate_block_columns, pure=False)
    parts = [partials(job, block, some, numerics) for some in columns]
    combined = delayed(blocks.combine, pure=False)(parts)
    results = [evaluate(job, block, some, combined) for some in columns]
    last: Delayed = delayed(blocks.commit, pure=False)(job, block, results)
    return last
