"""`softxent explain` prints the library's numbers; what it does not take, it names."""

from __future__ import annotations

import subprocess
import sys

import pytest

import softxent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "softxent_service.cli", "explain", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def columns(text: str, title: str) -> list[list[str]]:
    """The table of the step that is called so."""
    lines = text[text.index(f". {title}:") :].split("\n\n")[0].splitlines()
    return [line.split() for line in lines[2:]]


def test_every_step_is_printed_to_the_last_digit() -> None:
    done = run("2", "1", "0.1", "--label", "0")
    assert (done.returncode, done.stderr) == (0, "")
    wanted = softxent.explain([2, 1, 0.1], 0)
    assert wanted.loss_by_softmax_out is not None
    softmax = columns(done.stdout, "softmax")
    assert [float(line[2]) for line in softmax[:3]] == wanted.softmax_out.tolist()
    jacobian = columns(done.stdout, "its Jacobian")
    assert [line[1:] for line in jacobian] == [
        [f"{value:.4g}" for value in line] for line in wanted.softmax_jacobian
    ]
    assert f"L = {wanted.loss!r} nats" in done.stdout
    quotient = columns(done.stdout, "the loss by the softmax")
    assert [float(line[2]) for line in quotient] == wanted.loss_by_softmax_out.tolist()
    gradient = columns(done.stdout, "what is left")
    assert [float(line[1]) for line in gradient[:3]] == wanted.fused_gradient.tolist()


def test_digits_of_the_textbook_forms_are_judged() -> None:
    naive = columns(run("20", "0", "--label", "0").stdout, "what the textbook forms give")
    # log(1 / (1 + 2.06e-9)): eight digits are lost in float64, all of them in float32.
    assert " ".join(naive[0][2:]) == "2.0611535832696244e-09 7 digits right 0.0 no digit right"
    overflow = columns(run("100", "98", "--label=0").stdout, "what the textbook forms give")
    assert " ".join(overflow[0][-4:]) == "nan not a number"


def test_a_negative_logit_is_no_option_and_an_undefined_step_says_why() -> None:
    done = run("0", "-800", "--label", "1")
    assert done.returncode == 0
    assert "L = 800.0 nats" in done.stdout
    assert "softmax_out underflows float64 where the target is positive (class 1)" in done.stdout


def test_target_probabilities() -> None:
    done = run("2", "1", "--target-probabilities=0.25,0.75")
    wanted = softxent.explain([2, 1], target_probabilities=[0.25, 0.75])
    assert f"L = {wanted.loss!r} nats" in done.stdout


def test_a_long_row_says_what_it_leaves_out() -> None:
    done = run(*map(str, range(40)), "--label", "3")
    assert "28 more classes are not shown" in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 200


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["1", "two", "--label", "0"], 2, "'two' is not a number"),
        (["1", "2", "--labl", "0"], 2, "'--labl' is not a number"),
        (["1", "2", "--label", "x"], 2, "Invalid value for '--label'"),
        (["1", "2", "--target-probabilities", "1,"], 2, "'' is not a number"),
        (["1", "2"], 1, "give exactly one of label and target_probabilities"),
        (["1", "2", "--label", "2"], 1, "label 2 lies outside [0, 2)"),
        (
            ["1", "nan", "--label", "0"],
            1,
            "logits are not finite in 1 of 2 classes, first in class 1",
        ),
        (
            ["1", "2", "--target-probabilities", "1,1"],
            1,
            "target_probabilities must sum to 1 within 1e-06, not to 2.0",
        ),
    ],
)
def test_what_is_refused(arguments: list[str], status: int, says: str) -> None:
    done = run(*arguments)
    assert done.returncode == status
    assert says in done.stderr
    assert "Traceback" not in done.stderr
