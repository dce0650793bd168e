"""The Dask graph of a block: one task where rows are whole, two steps where columns are cut.

What a graph is run on is not known here.
"""

from __future__ import annotations

from dask.delayed import Delayed, delayed

import softxent
from softxent_service.jobs import blocks
from softxent_service.jobs.job import Job


def block_graph(job: Job, block: int) -> Delayed:
    """Return the graph whose result is what `blocks.evaluate_block` returns.

    The graphs of two blocks share nothing: each is sent, run and forgotten alone.
    """
    numerics = softxent.NUMERICS_VERSION
    if not job.plan.is_sharded:
        whole: Delayed = delayed(blocks.evaluate_block, pure=False)(job, block, numerics)
        return whole
    columns = job.plan.columns_of()
    partials = delayed(blocks.partials_of_columns, pure=False)
    evaluate = delayed(blocks.evaluate_block_columns, pure=False)
    parts = [partials(job, block, some, numerics) for some in columns]
    combined = delayed(blocks.combine, pure=False)(parts)
    results = [evaluate(job, block, some, combined) for some in columns]
    last: Delayed = delayed(blocks.commit, pure=False)(job, block, results)
    return last
