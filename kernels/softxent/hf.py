"""Losses for `transformers.Trainer`, evaluated by softxent.

    trainer = Trainer(model, arguments, compute_loss_func=CausalLMLoss(), ...)

Logits stay where they are: labels are shifted, not logits, and the gradient can take the logits'
place. The loss is divided by the number of labels of all accumulated batches and devices.
"""

from __future__ import annotations

import functools
from typing import Any, Unpack

from softxent._interop import Evaluator, refuse_missing
from softxent.errors import TensorError

try:
    import torch
except ImportError as error:
    refuse_missing("hf", error, "torch transformers")

from softxent.torch import Keywords, cross_entropy

__all__ = ["CausalLMLoss", "DistillationLoss", "TopKTargets"]

_TOP_K = ("target_indices", "target_log_probabilities")


class CausalLMLoss:
    """The loss of the next token, as `compute_loss_func` of a Trainer.

    Args:
        shift: whether labels stand under their own token, as Transformers has them, so that
            each row's label is the one after it.
        ignore_index, label_smoothing, inplace, service, **options: as `softxent.torch` has them.
    """

    def __init__(
        self,
        *,
        shift: bool = True,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        inplace: bool = False,
        service: Evaluator | None = None,
        **options: Unpack[Keywords],
    ) -> None:
        self.shift = shift
        self.ignore_index = ignore_index
        self.keywords: dict[str, Any] = {
            "label_smoothing": label_smoothing,
            "inplace": inplace,
            "service": service,
            **options,
        }

    def __call__(
        self, outputs: Any, labels: torch.Tensor | None, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return the sum of losses over `num_items_in_batch`, or over the labels here if None.

        Args:
            outputs: a model's, of which the logits [..., C] are taken.
            labels: [...], `ignore_index` where there is none.
            num_items_in_batch: how many labels all accumulated batches on all devices hold.
        """
        if labels is None:
            raise TensorError("labels are required: the batch has none", field="labels")
        return self._mean(outputs, {"target": self._shifted(labels)}, num_items_in_batch)

    def _mean(self, outputs: Any, target: dict[str, Any], items: Any) -> torch.Tensor:
        logits = outputs.logits if hasattr(outputs, "logits") else outputs["logits"]
        rows = logits.reshape(-1, logits.shape[-1])
        keywords = {"loss_dtype": torch.promote_types(logits.dtype, torch.float32)}
        # No labels at all: a mean of nothing, which is nan as in Transformers.
        if items is not None and float(items) > 0:
            keywords["denominator"] = float(items)
        flat = {name: tensor.flatten(0, logits.ndim - 2) for name, tensor in target.items()}
        return cross_entropy(
            rows, **flat, ignore_index=self.ignore_index, **keywords, **self.keywords
        )

    def _shifted(self, labels: torch.Tensor) -> torch.Tensor:
        if not self.shift:
            return labels
        padded = torch.nn.functional.pad(labels, (0, 1), value=self.ignore_index)
        return padded[..., 1:]


class DistillationLoss(CausalLMLoss):
    """The loss against a teacher's stored top-k, with the labels' share `hard_weight` if given.

    A row takes part where its label is not ignored. Top-k targets are the teacher's prediction at
    each position, so that they are not shifted.
    """

    def __call__(
        self,
        outputs: Any,
        labels: torch.Tensor | None,
        num_items_in_batch: Any = None,
        *,
        target_indices: torch.Tensor | None = None,
        target_log_probabilities: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the mean loss; targets [..., K] as `softxent.cross_entropy` takes them."""
        if labels is None or target_indices is None or target_log_probabilities is None:
            raise TensorError(
                "labels, target_indices and target_log_probabilities are required: train with"
                " a class of TopKTargets and Trainer, and remove_unused_columns=False",
                field="target_indices",
            )
        shifted = self._shifted(labels)
        target = {
            "target_indices": target_indices,
            "target_log_probabilities": target_log_probabilities,
        }
        if self.keywords.get("hard_weight") is not None:
            target["target"] = shifted
        else:
            target["row_weights"] = (shifted != self.ignore_index).double()
        return self._mean(outputs, target, num_items_in_batch)


class TopKTargets:
    """Mixin for `transformers.Trainer` that hands the top-k of a batch to a DistillationLoss.

    class Distiller(TopKTargets, Trainer): ...
    """

    compute_loss_func: Any

    def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        """Take the top-k out of the model's inputs, and evaluate as the Trainer does."""
        targets = {name: inputs.pop(name) for name in _TOP_K if name in inputs}
        loss = self.compute_loss_func
        self.compute_loss_func = functools.partial(loss, **targets)
        try:
            return super().compute_loss(model, inputs, *rest, **named)  # type: ignore[misc]
        finally:
            self.compute_loss_func = loss
