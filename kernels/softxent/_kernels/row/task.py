"""One batch for compiled code: its fields, declared once, and the record that carries them.

A record is 64-bit words: two for each array, its address and its number of elements, and one for
each number. Compiled code takes the address of a record and reads the fields it needs into local
variables before any loop; fields read inside a loop made lanes 1.2 to 1.5 times slower.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple, get_type_hints

from numba import types

from softxent._kernels.simd.span import Span, read, write

RENORMALIZE, BUCKET, NO_TAIL = 0, 1, 2
"""What becomes of the probability that a top-k target does not name."""

ELEMENT, COMPUTED = "element", "computed"
"""Types of elements that depend on the batch: as logits are stored, and as they are computed."""


class Rows:
    """Elements of an array that belong to one row; `ALL` is of no row."""

    ALL, ONE, CLASSES, ENTRIES, MASKED = range(5)


class Array(NamedTuple):
    """A flat C-contiguous array; one without elements stands for what is absent."""

    dtype: str
    per_row: int = Rows.ALL
    written: bool = False


class Number(NamedTuple):
    """One number or truth value."""

    dtype: str


class Task(NamedTuple):
    """One batch for the kernels; N rows of C classes, of which C' take part, and K entries.

    `logits`, `gradient_out` and the other outputs of one value a logit are flat [N * C], of the
    batch's element type: float64, float32, or uint16 for the floats of 16 bits.
    """

    logits: Annotated[Any, Array(ELEMENT, Rows.CLASSES)]
    bfloat16: Annotated[Any, Number("boolean")]
    """Whether 16-bit elements are bfloat16 and not float16."""
    labels: Annotated[Any, Array("int64", Rows.ONE)]
    """int64 [N]."""
    row_weights: Annotated[Any, Array("float64", Rows.ONE)]
    """float64 [N]."""
    class_weights: Annotated[Any, Array("float64")]
    """float64 [C]: class weight, 0 where a class takes part in no row."""
    other_weights: Annotated[Any, Array("float64")]
    """float64 [C]: the sum of all class weights but this one."""
    tile_weights: Annotated[Any, Array("float64")]
    """float64 [tiles]: the sum of class weights over each tile."""
    target: Annotated[Any, Array(COMPUTED, Rows.CLASSES)]
    """Target probabilities [N * C] in the type of computation."""
    stored_target: Annotated[Any, Array("uint16", Rows.CLASSES)]
    """The same as uint16 where they have 16 bits, as the logits do."""
    target_indices: Annotated[Any, Array("int64", Rows.ENTRIES)]
    """int64 [N * K]; -1 is no entry."""
    target_log_probabilities: Annotated[Any, Array("float64", Rows.ENTRIES)]
    """float64 [N * K]."""
    mask: Annotated[Any, Array("uint8", Rows.MASKED)]
    """uint8 [C], or [N * C] with `masks_rows`: 0 where a class takes no part."""
    masks_rows: Annotated[Any, Number("boolean")]
    classes: Annotated[Any, Number("int64")]
    all_classes: Annotated[Any, Number("int64")]
    """C of whole rows; more than `classes` where logits are a block of columns."""
    entries: Annotated[Any, Number("int64")]
    """K."""
    ignores: Annotated[Any, Number("boolean")]
    ignore_index: Annotated[Any, Number("int64")]
    smoothing: Annotated[Any, Number("float64")]
    """eps: the target is (1 - eps) of what is given, and `spread_mass` on the classes."""
    spread_mass: Annotated[Any, Number("float64")]
    """eps / C', or eps / (C' - 1) with `spares_label`; with `masks_rows` each row has its own."""
    spares_label: Annotated[Any, Number("boolean")]
    """Whether smoothing leaves out the label's own class."""
    hard_weight: Annotated[Any, Number("float64")]
    """How much of the target the label is, beside a soft target."""
    tail: Annotated[Any, Number("int64")]
    most_mass: Annotated[Any, Number("float64")]
    """What the probabilities of a top-k row may add up to, unless `tail` is RENORMALIZE."""
    z_loss: Annotated[Any, Number("float64")]
    softcap: Annotated[Any, Number("float64")]
    """s of s tanh(x / s); 0 leaves logits as they are."""
    inv_temperature_hi: Annotated[Any, Number("float64")]
    """1 / temperature, rounded to the type of computation, and what that leaves."""
    inv_temperature_lo: Annotated[Any, Number("float64")]
    scale: Annotated[Any, Number("float64")]
    weighs_classes: Annotated[Any, Number("boolean")]
    """Whether a row weighs its own weight times that of its label's class."""
    weighs: Annotated[Any, Number("boolean")]
    """Whether not every row weighs 1."""
    over_count: Annotated[Any, Number("boolean")]
    """Whether a batch that is evaluated in one call divides by the rows that take part."""
    divisor: Annotated[Any, Number("float64")]
    """What derivatives are divided by, unless `over_count`."""
    vectors: Annotated[Any, Array(COMPUTED, Rows.CLASSES)]
    """[N * C] in the type of computation: what a row's Hessian is multiplied with."""
    loss_out: Annotated[Any, Array(COMPUTED, Rows.ONE, written=True)]
    gradient_out: Annotated[Any, Array(ELEMENT, Rows.CLASSES, written=True)]
    log_normalizer_out: Annotated[Any, Array(COMPUTED, Rows.ONE, written=True)]
    probabilities_out: Annotated[Any, Array(ELEMENT, Rows.CLASSES, written=True)]
    log_probabilities_out: Annotated[Any, Array(ELEMENT, Rows.CLASSES, written=True)]
    entropy_out: Annotated[Any, Array(COMPUTED, Rows.ONE, written=True)]
    target_entropy_out: Annotated[Any, Array(COMPUTED, Rows.ONE, written=True)]
    prediction_out: Annotated[Any, Array("int64", Rows.ONE, written=True)]
    correct_out: Annotated[Any, Array("uint8", Rows.ONE, written=True)]
    rank_out: Annotated[Any, Array("int64", Rows.ONE, written=True)]
    hessian_diagonal_out: Annotated[Any, Array(ELEMENT, Rows.CLASSES, written=True)]
    hessian_vector_product_out: Annotated[Any, Array(ELEMENT, Rows.CLASSES, written=True)]


class Shard(NamedTuple):
    """Further fields of a task whose logits are a block of columns of [N, C], T tiles.

    `classes` is then the number of columns; class weights are of all classes. The arrays are
    float64, and empty where they are not given or not wanted.
    """

    first_class: Annotated[Any, Number("int64")]
    first_tile: Annotated[Any, Number("int64")]
    """Where the block's first tile stands among the row's T, which begin anew in every block."""
    tiles: Annotated[Any, Array("float64")]
    """[N * T * 3]: (m, c, S) of every tile of a row."""
    shortfalls: Annotated[Any, Array("float64")]
    """[N * T], where the target is spread over all classes."""
    entry_logits: Annotated[Any, Array("float64")]
    """[N * (K + 1)]: the logits of the target's entries, wherever they stand."""
    target_sums: Annotated[Any, Array("float64")]
    """[N * T]: the sum of each tile of a target that is written out."""
    tiles_out: Annotated[Any, Array("float64", written=True)]
    """[N * tiles * 3]: those of the block; if it is wanted nothing else is written but these."""
    shortfalls_out: Annotated[Any, Array("float64", written=True)]
    target_sums_out: Annotated[Any, Array("float64", written=True)]
    entry_logits_out: Annotated[Any, Array("float64", written=True)]
    """NaN for entries outside the block."""
    differs_out: Annotated[Any, Array("float64", written=True)]
    """[N], zeroed: 1 where the block's own tiles are not those of `tiles` and `target_sums`."""


ShardTask = namedtuple("ShardTask", Task._fields + Shard._fields)  # type: ignore[misc]


def _declared(*declarations: Any) -> dict[str, Array | Number]:
    hints: dict[str, Any] = {}
    for declaration in declarations:
        hints |= get_type_hints(declaration, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


FIELDS = {Task: _declared(Task), ShardTask: _declared(Task, Shard)}
"""The declared fields of a task, and of one that is a block of columns, in order."""


ARRAYS = {
    kind: tuple(name for name, field in fields.items() if isinstance(field, Array))
    for kind, fields in FIELDS.items()
}
"""The names of the arrays among them."""


LEAN = (
    "logits",
    "labels",
    "tile_weights",
    "loss_out",
    "gradient_out",
    "log_normalizer_out",
    "probabilities_out",
)
"""The arrays of a call that gives nothing beside logits and labels: passing one takes 50 ns."""

NAMES = {len(names): (kind, names) for kind, names in ((Task, LEAN), *ARRAYS.items())}
"""By how many arrays are passed: the kind of the task, and the arrays; others are absent."""


def _offsets(fields: dict[str, Array | Number]) -> dict[str, int]:
    found, word = {}, 0
    for name, field in fields.items():
        found[name] = word
        word += 2 if isinstance(field, Array) else 1
    return found


OFFSETS = _offsets(FIELDS[ShardTask])
"""The word of a record at which each field begins; both kinds begin with the same fields."""


def words_of(kind: Any) -> int:
    """Return how many words a record of a kind of task has."""
    return sum(2 if isinstance(field, Array) else 1 for field in FIELDS[kind].values())


class Record(types.Type):
    """The address of a record whose logits have one type of element."""

    def __init__(self, kind: Any, element: Any) -> None:
        self.kind = kind
        self.element = element
        super().__init__(name=f"Record({kind.__name__}, {element})")

    def dtype_of(self, field: Array | Number) -> Any:
        """Return the numba type of a number, or of the elements of an array."""
        if field.dtype == ELEMENT:
            return self.element
        if field.dtype == COMPUTED:
            return types.float64 if self.element == types.float64 else types.float32
        return getattr(types, field.dtype)

    @property
    def task(self) -> Any:
        """Return the type of the task that compiled code reads, whose arrays are spans."""
        members = [
            Span(self.dtype_of(field)) if isinstance(field, Array) else self.dtype_of(field)
            for field in FIELDS[self.kind].values()
        ]
        return types.NamedTuple(members, self.kind)


def array_types(record: Record, names: Iterable[str] | None = None) -> list[Any]:
    """Return the types of arrays that a record points to, by default of all."""
    fields = [FIELDS[record.kind][name] for name in names or ARRAYS[record.kind]]
    return [
        (write if field.written else read)(record.dtype_of(field))
        for field in fields
        if isinstance(field, Array)
    ]
