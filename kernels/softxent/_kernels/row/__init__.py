"""One row, or sixteen rows of a few classes: what is read, in which order, and what is written."""
