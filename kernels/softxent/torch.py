"""PyTorch's cross_entropy, evaluated by softxent.

    from softxent.torch import cross_entropy

It takes what `torch.nn.functional.cross_entropy` takes and returns what that returns, with the
library's accuracy and its further options by keyword. Loss and gradient are evaluated together in
the forward. Tensors lie on the CPU.
"""

from __future__ import annotations

from typing import Any, TypedDict, Unpack

from softxent._interop import OPTIONS, ErrorsAlso, Evaluator, check_service, refuse_missing
from softxent.errors import OptionError, SoftxentError, TensorError
from softxent.evaluations import DTYPES
from softxent.hints import unknown
from softxent.options import Options

try:
    import torch
except ImportError as error:
    refuse_missing("torch", error, "torch")

from softxent import _torch_autograd as autograd
from softxent import _torch_operators as operators
from softxent._torch_autograd import REFUSALS

__all__ = ["CrossEntropyLoss", "cross_entropy"]


class Keywords(TypedDict, total=False):
    """The further options, with the defaults and meanings of `softxent.Options`."""

    smoothing: str
    z_loss: float
    softcap: float | None
    temperature: float
    tail: str
    hard_weight: float | None
    denominator: float | None
    mean_over: str
    scale: float
    non_finite: str
    empty: str


_KEYWORDS: dict[str, Any] = {name: getattr(Options, name) for name in Keywords.__annotations__}
_KEYWORDS["non_finite"] = "propagate"

TYPE_ERRORS = ErrorsAlso({SoftxentError: TypeError})
"""What PyTorch raises for an argument of the wrong type."""

_DTYPES = frozenset(getattr(torch, name) for name in DTYPES)
_PER_ROW = ("target", "row_weights")


def cross_entropy(
    input: torch.Tensor,
    target: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    target_probabilities: torch.Tensor | None = None,
    target_indices: torch.Tensor | None = None,
    target_log_probabilities: torch.Tensor | None = None,
    row_weights: torch.Tensor | None = None,
    class_mask: torch.Tensor | None = None,
    loss_dtype: torch.dtype | None = None,
    inplace: bool = False,
    service: Evaluator | None = None,
    **options: Unpack[Keywords],
) -> torch.Tensor:
    """Return the softmax cross-entropy of logits, as `torch.nn.functional.cross_entropy` does.

    Args:
        input: logits [C], [N, C] or [N, C, d1, ...]; float64, float32, float16 or bfloat16.
        target: labels [], [N] or [N, d1, ...] of any integer dtype, or probabilities of the
            input's shape; may be left out where there is a top-k target.
        weight: [C], of each class; not negative.
        ignore_index, reduction, label_smoothing: as there.
        target_probabilities: of the input's shape, beside labels; `hard_weight` mixes them.
        target_indices, target_log_probabilities: [N, K] or [N, K, d1, ...], a top-k target.
        row_weights: of the labels' shape; a row of weight 0 is ignored.
        class_mask: [C] or of the input's shape, booleans.
        loss_dtype: of the loss; None is the input's, and float32 for one of 16 bits under autocast.
        inplace: overwrite the logits with the gradient where one is wanted, so that no other
            memory of their size is needed. They must be contiguous and no leaf. Compiled code
            leaves the memory to the compiler.
        service: a `softxent_client.Client` that evaluates in the place of this process.
        **options: see `Keywords`; `non_finite` is "propagate" unless given, as in PyTorch.

    Raises:
        SoftxentError: what the library raises, with its message; as PyTorch's are, a LabelError
            is also an IndexError, an argument of the wrong type or name a TypeError, and any
            other a RuntimeError.
    """
    given: Any = dict(options)
    try:
        values = _options(given, ignore_index, reduction, label_smoothing)
        tensors = {
            "input": input,
            "target": target,
            "target_probabilities": target_probabilities,
            "target_indices": target_indices,
            "target_log_probabilities": target_log_probabilities,
            "weight": weight,
            "row_weights": row_weights,
            "class_mask": class_mask,
        }
        _check(tensors, service)
        if target is not None and target.is_floating_point():
            _take_probabilities(tensors)
        laid_out = _classes_last(tensors)
    except SoftxentError as error:  # Compilers do not enter contexts made outside.
        REFUSALS.mark(error)
        raise
    loss = _evaluate(input, laid_out, values, service, inplace=inplace)
    if input.ndim == 1 and reduction == "none":
        loss = loss.squeeze(0)
    return loss.to(_loss_dtype(input) if loss_dtype is None else loss_dtype)


class CrossEntropyLoss(torch.nn.Module):
    """`cross_entropy` as a module: `torch.nn.CrossEntropyLoss` with our further options."""

    weight: torch.Tensor | None

    def __init__(
        self,
        weight: torch.Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        class_mask: torch.Tensor | None = None,
        loss_dtype: torch.dtype | None = None,
        inplace: bool = False,
        service: Evaluator | None = None,
        **options: Unpack[Keywords],
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("class_mask", class_mask)
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing
        self.keywords: dict[str, Any] = {
            "loss_dtype": loss_dtype,
            "inplace": inplace,
            "service": service,
            **options,
        }

    def forward(
        self, input: torch.Tensor, target: torch.Tensor | None = None, **tensors: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss; further tensors are `cross_entropy`'s, by keyword."""
        return cross_entropy(
            input,
            target,
            self.weight,
            self.ignore_index,
            self.reduction,
            self.label_smoothing,
            class_mask=self.class_mask,
            **self.keywords,
            **tensors,
        )

    def extra_repr(self) -> str:
        """Return what is printed between the brackets."""
        return f"reduction={self.reduction!r}, label_smoothing={self.label_smoothing}"


def _options(given: Any, ignore_index: Any, reduction: Any, label_smoothing: Any) -> Any:
    """Return the value of each of `OPTIONS`, in order; the library checks what they are."""
    for name in given:
        if name not in _KEYWORDS:
            with TYPE_ERRORS:
                raise OptionError(unknown("option", name, tuple(_KEYWORDS)), field=name)
    if not isinstance(ignore_index, int):
        with TYPE_ERRORS:
            raise OptionError(
                f"ignore_index must be an integer, not {ignore_index!r}", field="ignore_index"
            )
    values = {
        **_KEYWORDS,
        "reduction": reduction,
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        **given,
    }
    return tuple(map(values.__getitem__, OPTIONS))


def _check(tensors: dict[str, Any], service: Any) -> None:
    """Refuse what is no tensor, other devices and dtypes, derivatives that are not evaluated, and
    what is no service."""
    if service is not None:
        check_service(service)
    for name, tensor in tensors.items():
        if tensor is None and name != "input":
            continue
        if not isinstance(tensor, torch.Tensor):
            with TYPE_ERRORS:
                raise TensorError(
                    f"{name} must be a tensor, not {type(tensor).__name__}", field=name
                )
        if not tensor.is_cpu:
            raise TensorError(
                f"{name} is on {tensor.device}; softxent evaluates on the CPU: pass {name}.cpu()",
                field=name,
            )
        if tensor.requires_grad and name != "input":
            raise TensorError(
                f"{name} requires a gradient, which is evaluated for input alone: pass"
                f" {name}.detach()",
                field=name,
            )
    input = tensors["input"]
    if input.dtype not in _DTYPES:
        known = ", ".join(DTYPES)
        raise TensorError(f"input must be one of {known}, not {input.dtype}", field="input")
    if input.ndim == 0:
        raise TensorError("input must have at least 1 dimension, [C]", field="input")


def _take_probabilities(tensors: dict[str, Any]) -> None:
    """Take the target for probabilities, as PyTorch does where it holds floats."""
    if tensors["target_probabilities"] is not None:
        raise TensorError(
            "target holds probabilities, and so does target_probabilities: give one",
            field="target_probabilities",
        )
    tensors["target_probabilities"], tensors["target"] = tensors["target"], None


def _classes_last(tensors: dict[str, Any]) -> tuple[Any, ...]:
    """Return the tensors with the class axis last and, where the input is [C], a batch of one."""
    if tensors["input"].ndim == 2:
        return tuple(tensors.values())
    alone = tensors["input"].ndim == 1
    return tuple(
        tensor
        if tensor is None or name == "weight" or (name == "class_mask" and tensor.ndim == 1)
        else tensor.unsqueeze(0)
        if alone
        else tensor
        if name in _PER_ROW or tensor.ndim < 3
        else tensor.movedim(1, -1)
        for name, tensor in tensors.items()
    )


def _evaluate(
    input: torch.Tensor, tensors: Any, options: Any, service: Any, *, inplace: bool
) -> torch.Tensor:
    """Evaluate by an autograd Function, or by an operator for whatever traces or transforms."""
    wanted = torch.is_grad_enabled() and input.requires_grad
    loss: torch.Tensor
    if torch._C._are_functorch_transforms_active() and not torch.compiler.is_compiling():
        number = operators.service_id(service)
        loss, _ = operators.TransformedCrossEntropy.apply(wanted, *tensors, *options, number)
    elif torch.compiler.is_compiling() or type(input) not in (torch.Tensor, torch.nn.Parameter):
        number = operators.service_id(service)
        loss, _ = operators.cross_entropy_operator(wanted, *tensors, *options, number)
    elif not wanted:
        loss, _ = autograd.loss_and_gradient(tensors, options, service, with_gradient=False)
    elif inplace:
        owner = _owner(tensors[0])
        loss, _ = autograd.CrossEntropyInPlace.apply(
            options, service, owner, tensors[0].detach(), *tensors[1:]
        )
    else:
        loss = autograd.CrossEntropy.apply((tensors[1:], options, service), tensors[0])
    return loss


def _owner(logits: torch.Tensor) -> torch.Tensor:
    """Return the tensor whose memory the logits are, all of it, where it may be overwritten."""
    owner = logits if logits._base is None else logits._base
    with REFUSALS:
        if owner.is_leaf:
            raise TensorError(
                "input is a leaf that requires grad, or a view of one, and cannot be overwritten:"
                " leave inplace out",
                field="input",
            )
        if not logits.is_contiguous() or logits.numel() != owner.numel():
            raise TensorError(
                "inplace needs logits that are contiguous with the class axis last and all of"
                " their memory: leave inplace out",
                field="input",
            )
    return owner


def _loss_dtype(input: torch.Tensor) -> torch.dtype:
    is_half = input.dtype in (torch.float16, torch.bfloat16)
    if is_half and torch.is_autocast_enabled("cpu"):
        return torch.float32
    return input.dtype
