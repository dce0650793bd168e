"""What softxent.torch adds to PyTorch's loss: accuracy, options, memory, typed errors, services."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from adapter_support import LABELS, gradient, leaf, logits
from torch.nn.functional import cross_entropy as torchs
from torch.testing import assert_close

import softxent
from softxent.torch import CrossEntropyLoss, cross_entropy
from softxent_client import AsyncClient, Client

HALVES = [torch.float16, torch.bfloat16]


def test_a_confident_row_keeps_its_loss() -> None:
    x = torch.tensor([[20.0, 0.0]], requires_grad=True)
    loss = cross_entropy(x, torch.tensor([0]))
    assert loss.item() == pytest.approx(2.0611536e-09, rel=1e-6)
    assert_close(gradient(loss, x), torch.tensor([[-2.0611536e-09, 2.0611536e-09]]))


def by_hand(name: str, z: Any) -> tuple[Any, dict[str, Any]]:
    """A loss of all rows made of PyTorch's own operations, and the options that name it."""
    rows = torchs(z, LABELS, reduction="none")
    weights = torch.tensor([1.0, 2.0, 0.0, 0.5, 3.0, 1.0], dtype=z.dtype)
    allowed = torch.ones(6, 5, dtype=torch.bool).triu(-3)
    allowed[5] = True
    taken = LABELS != -100
    probabilities = torch.softmax(z.detach().flip(0), 1)
    top = probabilities.topk(2)
    logs = top.values.log()
    best = torch.log_softmax(z, 1).gather(1, top.indices)
    share = torch.softmax(logs, 1)
    cases = {
        "z_loss": (rows + 0.1 * torch.logsumexp(z, 1) ** 2 * taken, {"z_loss": 0.1}),
        "softcap": (torchs(3 * torch.tanh(z / 3), LABELS, reduction="none"), {"softcap": 3.0}),
        "temperature": (torchs(z / 2, LABELS, reduction="none"), {"temperature": 2.0}),
        "scale": (rows * 3, {"scale": 3.0}),
        "row_weights": (rows * weights, {"row_weights": weights}),
        "class_mask": (
            torchs(z.masked_fill(~allowed, -torch.inf), LABELS, reduction="none"),
            {"class_mask": allowed},
        ),
        "top_k": (
            -(share * best).sum(1),
            {"target": None, "target_indices": top.indices, "target_log_probabilities": logs},
        ),
        "tail_none": (
            -(top.values * best).sum(1),
            {
                "target": None,
                "target_indices": top.indices,
                "target_log_probabilities": logs,
                "tail": "none",
            },
        ),
        "hard_weight": (
            (0.3 * rows + 0.7 * torchs(z, probabilities, reduction="none")) * taken,
            {"target_probabilities": probabilities, "hard_weight": 0.3},
        ),
    }
    return cases[name]


OPTIONS = (
    "z_loss",
    "softcap",
    "temperature",
    "scale",
    "row_weights",
    "class_mask",
    "top_k",
    "tail_none",
    "hard_weight",
)


@pytest.mark.parametrize("name", OPTIONS)
def test_option(name: str) -> None:
    x = leaf()
    theirs, options = by_hand(name, x)
    ours = cross_entropy(x, **{"target": LABELS, "reduction": "none", **options})
    assert_close(ours, theirs)
    assert_close(gradient(ours.sum(), x), gradient(theirs.sum(), x))


def test_denominator() -> None:
    x = leaf()
    ours = cross_entropy(x, LABELS, denominator=7.0)
    theirs = torchs(x, LABELS, reduction="sum") / 7
    assert_close(ours, theirs)
    assert_close(gradient(ours, x), gradient(theirs, x))


def test_class_axis_is_the_second_for_every_tensor() -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = torch.softmax(torch.randn(2, 5, 3, 4, generator=generator), 1).double()
    top = teacher.topk(5, dim=1)
    ours = cross_entropy(
        images, target_indices=top.indices, target_log_probabilities=top.values.log()
    )
    theirs = torchs(images, teacher)
    assert_close(ours, theirs)
    assert_close(gradient(ours, images), gradient(theirs, images))
    mask = torch.ones(2, 5, 3, 4, dtype=torch.bool)
    mask[:, 2] = False
    some = [0, 1, 3, 4]
    labels = torch.zeros(2, 3, 4, dtype=torch.int64)
    assert_close(cross_entropy(images, labels, class_mask=mask), torchs(images[:, some], labels))


def test_module_holds_weights_and_options() -> None:
    weight = torch.rand(5, dtype=torch.float64)
    module = CrossEntropyLoss(weight, label_smoothing=0.1, z_loss=0.1, reduction="none")
    assert list(module.state_dict()) == ["weight"]
    theirs = torch.nn.CrossEntropyLoss(weight, label_smoothing=0.1, reduction="none")(
        logits(), LABELS
    )
    taken = LABELS != -100
    assert_close(module(logits(), LABELS), theirs + taken * 0.1 * torch.logsumexp(logits(), 1) ** 2)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_16_bits_have_the_accuracy_of_float32(dtype: Any) -> None:
    x = leaf(dtype)
    exact = x.detach().double().requires_grad_()
    loss = cross_entropy(x, LABELS, loss_dtype=torch.float32)
    assert loss.dtype == torch.float32
    assert_close(loss.double(), torchs(exact, LABELS), rtol=1e-6, atol=0)
    found, best = gradient(loss, x), gradient(torchs(exact, LABELS), exact).to(dtype)
    assert_close(found, best, rtol=torch.finfo(dtype).eps, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert cross_entropy(x, LABELS).dtype == torchs(x, LABELS).dtype == torch.float32
    assert cross_entropy(x, LABELS).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES], ids=str)
def test_the_library_takes_tensors_in_their_own_memory(dtype: Any) -> None:
    x = leaf(dtype)
    named = {torch.bfloat16: ml_dtypes.bfloat16}.get(dtype, str(dtype).split(".")[-1])
    array = x.detach().float().numpy().astype(named)
    theirs = softxent.cross_entropy(array, LABELS.numpy(), reduction="mean")
    ours = softxent.cross_entropy(x, LABELS, reduction="mean")
    assert ours.loss == theirs.loss
    assert ours.gradient is not None
    assert ours.gradient.tobytes() == np.asarray(theirs.gradient).tobytes()
    memory = softxent._interop.as_numpy("logits", x)
    assert memory.__array_interface__["data"][0] == x.data_ptr()


class OnlyDlpack:
    """An array of a library that speaks nothing but DLPack."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def __dlpack__(self, **rest: Any) -> Any:
        return self._tensor.__dlpack__(**rest)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


def test_the_library_takes_dlpack() -> None:
    x, labels = logits(), LABELS
    given: list[Any] = [OnlyDlpack(x), OnlyDlpack(labels)]
    ours = softxent.cross_entropy(*given, reduction="mean")
    assert_close(torch.tensor(ours.loss, dtype=torch.float64), torchs(x, labels))


def test_the_library_refuses_other_devices() -> None:
    with pytest.raises(softxent.TensorError, match=r"logits is on meta.*logits\.cpu\(\)"):
        softxent.cross_entropy(logits().to("meta"), LABELS)


def test_gradient_is_handed_over_without_a_copy() -> None:
    x = leaf()
    cross_entropy(x, LABELS).backward()
    first = x.grad
    for _ in range(3):
        x.grad = None
        loss = cross_entropy(x, LABELS)
        loss.backward(retain_graph=True)
        loss.backward()
        assert_close(x.grad, 2 * first)


def test_logits_may_change_between_forward_and_backward() -> None:
    w = leaf()
    for loss_of in (torchs, cross_entropy):
        x = w * 2
        loss = loss_of(x, LABELS)
        x.zero_()
        found = gradient(loss, w)
    assert_close(found, gradient(torchs(w * 2, LABELS), w))


FAULTS: dict[str, tuple[type[Exception], type[Exception], str, Any]] = {
    "label": (
        softxent.LabelError,
        IndexError,
        r"labels must lie in \[0, 5\) or be -100; 1 does not; rows 2 \(5\)",
        lambda x, _: cross_entropy(x, torch.tensor([0, 1, 5, 3, -100, 4])),
    ),
    "shape": (
        softxent.TensorError,
        RuntimeError,
        r"the shape of labels is \[3\]",
        lambda x, y: cross_entropy(x, y[:3]),
    ),
    "dtype": (
        softxent.TensorError,
        RuntimeError,
        r"input must be one of float64, float32, float16, bfloat16, not torch\.int32",
        lambda x, y: cross_entropy(x.detach().int(), y),
    ),
    "device": (
        softxent.TensorError,
        RuntimeError,
        "input is on meta",
        lambda x, y: cross_entropy(x.to("meta"), y),
    ),
    "target's derivative": (
        softxent.TensorError,
        RuntimeError,
        r"target requires a gradient.*target\.detach\(\)",
        lambda x, _: cross_entropy(x, torch.softmax(x, 1)),
    ),
    "smoothing": (
        softxent.OptionError,
        RuntimeError,
        r"label_smoothing must be in \[0, 1\]",
        lambda x, y: cross_entropy(x, y, label_smoothing=2.0),
    ),
    "reduction": (
        softxent.OptionError,
        ValueError,
        "reduction must be one of none, mean, sum",
        lambda x, y: cross_entropy(x, y, reduction="average"),
    ),
    "position": (
        softxent.OptionError,
        TypeError,
        "ignore_index must be an integer, not None",
        lambda x, y: cross_entropy(x, y, None, None),  # type: ignore[arg-type]
    ),
    "option": (
        softxent.OptionError,
        TypeError,
        r"unknown option 'z_los'.*did you mean z_loss\?",
        lambda x, y: cross_entropy(x, y, z_los=1.0),  # type: ignore[call-arg]
    ),
    "array": (
        softxent.TensorError,
        TypeError,
        "input must be a tensor, not ndarray",
        lambda x, y: cross_entropy(x.detach().numpy(), y),
    ),
    "list": (
        softxent.TensorError,
        TypeError,
        "target must be a tensor, not list",
        lambda x, y: cross_entropy(x, y.tolist()),
    ),
    "targets": (
        softxent.TensorError,
        RuntimeError,
        "target holds probabilities, and so does target_probabilities",
        lambda x, _: cross_entropy(x, x.detach().exp(), target_probabilities=x.detach().exp()),
    ),
    "no target": (
        softxent.TensorError,
        RuntimeError,
        "a target is required",
        lambda x, _: cross_entropy(x),
    ),
    "mask": (
        softxent.TensorError,
        RuntimeError,
        "class_mask must be booleans, not float64",
        lambda x, y: cross_entropy(x, y, class_mask=torch.ones(5, dtype=torch.float64)),
    ),
    "masked label": (
        softxent.LabelError,
        IndexError,
        r"labels name classes that class_mask leaves out; 1 row at fault; rows 0 \(0\)",
        lambda x, y: cross_entropy(x, y, class_mask=torch.arange(5) > 0),
    ),
    "weight": (
        softxent.WeightError,
        RuntimeError,
        r"class_weights must be finite and not negative; 1 is not; rows 1 \(-1\.0\)",
        lambda x, y: cross_entropy(x, y, torch.tensor([1.0, -1.0, 1.0, 1.0, 1.0])),
    ),
    "probabilities": (
        softxent.RowsError,
        RuntimeError,
        r"rows 0 ",
        lambda x, _: cross_entropy(x, -x.detach().abs()),
    ),
    "service": (
        softxent.OptionError,
        ValueError,
        "service must be a softxent_client.Client or None, not AsyncClient",
        lambda x, y: cross_entropy(x, y, service=AsyncClient("http://127.0.0.1:1")),  # type: ignore[arg-type]
    ),
    "softcap's Hessian": (
        softxent.OptionError,
        RuntimeError,
        "does not go with a softcap",
        lambda x, y: torch.autograd.functional.hvp(
            lambda z: cross_entropy(z, y, softcap=3.0), x.detach(), torch.ones_like(x)
        ),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name: str) -> None:
    ours, theirs, message, call = FAULTS[name]
    with pytest.raises(ours, match=message) as caught:
        call(leaf(), LABELS)
    assert isinstance(caught.value, theirs)


def test_other_values_are_pytorchs_too() -> None:
    x = torch.tensor([[torch.nan, 0.0], [-torch.inf, 0.0]])
    labels = torch.tensor([1, 0])
    assert_close(
        cross_entropy(x, labels, reduction="none"),
        torchs(x, labels, reduction="none"),
        equal_nan=True,
    )
    with pytest.raises(softxent.NonFiniteError):
        cross_entropy(x, labels, non_finite="error")
    assert cross_entropy(x, torch.tensor([-100, -100])).isnan()


@pytest.mark.parametrize("inplace", [False, True])
def test_a_service_gives_the_same_bits(service_url: str, inplace: bool) -> None:
    w = leaf(torch.bfloat16)
    with Client(service_url) as service:
        ours = cross_entropy(w * 2, LABELS, label_smoothing=0.1)
        remote = cross_entropy(w * 2, LABELS, label_smoothing=0.1, inplace=inplace, service=service)
        assert remote.item() == ours.item()
        assert torch.equal(gradient(remote, w), gradient(ours, w))
        with pytest.raises(IndexError, match=r"rows 1 \(9\)"):
            cross_entropy(w[:2], torch.tensor([0, 9]), service=service)
        vector = torch.ones(6, 5, dtype=torch.float64).triu()
        products = (
            torch.autograd.functional.hvp(
                lambda x, s=s: cross_entropy(x, LABELS, service=s), logits(), vector
            )[1]
            for s in (None, service)
        )
        assert torch.equal(*products)
