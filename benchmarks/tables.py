"""Tables as text that reads well in a terminal and is Markdown as well."""

from __future__ import annotations

from collections.abc import Sequence


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a title and a table; the first column is set left, figures are set right."""
    print(f"\n{title}\n\n{table(header, rows)}", flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the table's lines; each row has as many cells as the header."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(3, *(len(cell) for cell in column)) for column in columns]
    rule = [f"{'-' * (widths[0])}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    return "\n".join(
        [_line(header, widths), _line(rule, widths), *(_line(r, widths) for r in rows)]
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    set_right = [cell.rjust(width) for cell, width in others]
    return f"| {' | '.join([first[0].ljust(first[1]), *set_right])} |"
