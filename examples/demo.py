"""Train a classifier whose every loss and gradient comes from the service, then a large batch.

Starts a service of its own (or takes --url), fits a softmax regression to scikit-learn's digits by
gradient descent, and checks the outcome against other people's code and against the definition of
a derivative. The exit status is 1 where something does not agree.
"""

from __future__ import annotations

import argparse
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from softxent import SoftxentError
from softxent_client import Client

try:
    from sklearn.datasets import load_digits
    from sklearn.metrics import log_loss
    from sklearn.model_selection import train_test_split
    from sklearn.utils.extmath import softmax
except ModuleNotFoundError as missing:
    sys.exit(f"demo: {missing.name} is not installed; run: pip install scikit-learn")

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

READY_SECONDS = 240
"""The first start on a machine compiles every kernel."""

FLAGS = (
    ("--steps", 200, "steps of gradient descent"),
    ("--rows", 1_024, "rows of the large batch"),
    ("--classes", 32_000, "columns of the large batch"),
)

LEARNING_RATE, MOMENTUM = 0.5, 0.9
SPARK_WIDTH = 32
LOG_LOSS_TOLERANCE = 1e-12
DIFFERENCE_STEP = 1e-5
DIFFERENCE_TOLERANCE = 1e-8
"""A central difference of this step errs by about step**2 + 2**-53 / step, some 1e-10 here."""


@dataclass(frozen=True)
class Digits:
    """Pixels in [0, 1] with a column of ones [N, 65], and which digit each image shows [N]."""

    train: Floats
    train_labels: Labels
    held_out: Floats
    held_out_labels: Labels


def digits() -> Digits:
    """Return scikit-learn's 1,797 scanned digits, a quarter of them held out."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.hstack([pixels / 16, np.ones((len(pixels), 1))])
    split = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)
    train, held_out, train_labels, held_out_labels = split
    return Digits(train, train_labels, held_out, held_out_labels)


@dataclass(frozen=True)
class Evaluation:
    """A mean loss and its gradient by the logits [N, 10]."""

    loss: float
    gradient: Floats


@dataclass(frozen=True)
class Clients:
    """Two ways to the same service."""

    binary: Client
    json: Client

    def evaluate(self, step: int, logits: Floats, labels: Labels) -> Evaluation:
        """Evaluate a batch, by turns over JSON and in binary."""
        client = self.binary if step % 2 else self.json
        result = client.cross_entropy(logits, labels, reduction="mean")
        return Evaluation(
            float(np.asarray(result.loss)), np.asarray(result.gradient, dtype=np.float64)
        )


def train(clients: Clients, data: Digits, steps: int, console: Console) -> Floats:
    """Return weights [65, 10] after gradient descent with momentum from zero."""
    weights = np.zeros((data.train.shape[1], 10))
    velocity = np.zeros_like(weights)
    losses: list[float] = []
    columns = [
        TextColumn("training"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f} {task.fields[curve]}"),
    ]
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=steps, loss=np.log(10), curve="")
        for step in range(steps):
            result = clients.evaluate(step, data.train @ weights, data.train_labels)
            velocity = MOMENTUM * velocity - LEARNING_RATE * (data.train.T @ result.gradient)
            weights = weights + velocity
            losses.append(result.loss)
            curve = sparkline(losses, plain=console.options.ascii_only)
            progress.update(task, advance=1, loss=losses[-1], curve=curve)
    return weights


def sparkline(values: Sequence[float], *, plain: bool) -> str:
    """Return values in log scale as a line of bars, high to low."""
    bars = "_.-=*#" if plain else "▁▂▃▄▅▆▇█"
    picked = np.log([values[i * len(values) // SPARK_WIDTH] for i in range(SPARK_WIDTH)])
    span = float(np.ptp(picked)) or 1.0
    places = np.rint((picked - picked.min()) / span * (len(bars) - 1)).astype(int)
    return "".join(bars[place] for place in places)


class Agreements:
    """Prints each comparison and remembers whether all held."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.all_hold = True

    def check(self, what: str, difference: float, tolerance: float) -> None:
        """Compare a difference with its tolerance; NaN does not hold."""
        holds = bool(difference <= tolerance)
        self.all_hold &= holds
        verdict = "[green]agrees[/]" if holds else "[bold red]DISAGREES[/]"
        within = f"{difference:.1e}, allowed {tolerance:.0e}" if tolerance else f"{difference:.1e}"
        self._console.print(f"  {what}: {verdict} ({within})")


def compare(clients: Clients, data: Digits, weights: Floats, agreements: Agreements) -> None:
    """Check the trained model's loss and gradient in three independent ways."""
    logits, labels = data.train @ weights, data.train_labels
    json, binary = (clients.evaluate(step, logits, labels) for step in (0, 1))
    agreements.check("JSON with binary, to the bit", largest_difference(json, binary), 0.0)
    reference = log_loss(labels, softmax(logits))
    agreements.check(
        "mean loss with sklearn.metrics.log_loss",
        abs(binary.loss - float(reference)),
        LOG_LOSS_TOLERANCE,
    )
    agreements.check(
        "gradient with a central difference of the loss",
        slope_error(clients, data, weights, data.train.T @ binary.gradient),
        DIFFERENCE_TOLERANCE,
    )


def largest_difference(first: Evaluation, second: Evaluation) -> float:
    """Return by how much two evaluations differ at most."""
    off = np.abs(first.gradient - second.gradient).max()
    return max(abs(first.loss - second.loss), float(off))


def slope_error(clients: Clients, data: Digits, weights: Floats, gradient: Floats) -> float:
    """Return how far the gradient's slope is from the loss's own, along some random directions."""

    def loss(moved: Floats) -> float:
        return clients.evaluate(1, data.train @ moved, data.train_labels).loss

    errors = []
    for direction in np.random.default_rng(0).normal(size=(5, *weights.shape)):
        direction /= np.linalg.norm(direction)
        step = DIFFERENCE_STEP * direction
        slope = (loss(weights + step) - loss(weights - step)) / (2 * DIFFERENCE_STEP)
        errors.append(abs(slope - float(np.vdot(gradient, direction))))
    return max(errors)


def accuracy(images: Floats, labels: Labels, weights: Floats) -> str:
    """Say of how many images the largest logit is their label's."""
    right = np.mean(np.argmax(images @ weights, axis=1) == labels)
    return f"[bold]{right:.1%}[/] right of {len(images):,} images"


def large_batch(
    client: Client, rows: int, classes: int, console: Console, agreements: Agreements
) -> None:
    """Evaluate a batch of a language model's shape a few times and print the median time."""
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((rows, classes), np.float32)
    labels = generator.integers(0, classes, rows)
    times = []
    with console.status(f"a batch of {rows:,} x {classes:,}"):
        for _ in range(5):
            began = time.perf_counter()
            result = client.cross_entropy(logits, labels)
            times.append(time.perf_counter() - began)
    median = statistics.median(times)
    console.print(
        f"language-model batch: {rows:,} x {classes:,} float32, {logits.nbytes / 1e6:.1f} MB"
        f" each way, loss and gradient in [bold]{median * 1e3:.0f} ms[/]"
        f" ({2 * logits.nbytes / median / 1e9:.2f} GB/s), median of {len(times)}"
    )
    sums = np.asarray(result.gradient).sum(axis=1, dtype=np.float64)
    agreements.check("every row of its gradient sums to 0", float(np.abs(sums).max()), 1e-5)


@contextmanager
def own_service(console: Console) -> Iterator[str]:
    """Start a service on a free port, yield its URL once it is ready, end it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "softxent_service.cli", "serve", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log)
        try:
            with console.status("starting a service (the first start compiles its kernels)"):
                wait_until_ready(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    """Return once the service answers; end the demo with the service's log where it does not."""
    deadline = time.monotonic() + READY_SECONDS
    with Client(url) as client:
        while not client.health():
            if process.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                sys.exit(f"demo: the service did not start\n{log.read().decode(errors='replace')}")
            time.sleep(0.1)


def run(arguments: argparse.Namespace, console: Console) -> bool:
    """Do everything; tell whether all agreements hold."""
    with ExitStack() as stack:
        url = arguments.url or stack.enter_context(own_service(console))
        clients = Clients(
            stack.enter_context(Client(url)), stack.enter_context(Client(url, encoding="json"))
        )
        info = clients.binary.info()
        console.print(f"softxent {info['version']} at {url}, {info['threads']} kernel threads")
        data = digits()
        agreements = Agreements(console)
        weights = train(clients, data, arguments.steps, console)
        console.print(
            f"digits: {accuracy(data.train, data.train_labels, weights)} to train on,"
            f" {accuracy(data.held_out, data.held_out_labels, weights)} held out"
        )
        compare(clients, data, weights, agreements)
        large_batch(clients.binary, arguments.rows, arguments.classes, console, agreements)
    return agreements.all_hold


def positive(text: str) -> int:
    """Read a flag that counts something."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def main() -> None:
    """Run the demo from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a running service; without it one is started")
    for flag, default, what in FLAGS:
        text = f"{what}; default: %(default)s"
        parser.add_argument(flag, type=positive, default=default, help=text)
    arguments = parser.parse_args()
    # So that the service started here ends with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        holds = run(arguments, Console(highlight=False, soft_wrap=True))
    except SoftxentError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
