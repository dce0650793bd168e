"""Specification of a job: one flat record for JSON, command line and database.

Members are the tensors of `cross_entropy` under their names, each the URL of an array; `output`,
the URL of the group to be made; `on_error`; and every option under its own name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from softxent import Options
from softxent.evaluations import CROSS_ENTROPY, TENSORS, Evaluation
from softxent_service.jobs.errors import SpecificationError

JOB: Evaluation = dataclasses.replace(CROSS_ENTROPY, default_outputs=("loss",))
"""What a job evaluates: a terabyte of gradient must be wanted."""

ON_ERROR = ("fail", "skip")

MEMBERS = (*TENSORS, "output", "on_error", *JOB.options)

DIVIDED = ("gradient", "hessian_diagonal")
"""The outputs that a mean divides, and so cannot be written before its divisor is known."""


@dataclass(frozen=True)
class Specification:
    """A job as it was asked for.

    Attributes:
        tensors: name and URL of each.
        output: the URL of the group to be made.
        options: how rows are evaluated.
        on_error: "fail" ends the job at rows that are refused, "skip" leaves them out as ignored
            ones and lists them.
    """

    tensors: tuple[tuple[str, str], ...]
    output: str
    options: Options
    on_error: str = "fail"

    @classmethod
    def from_json(cls, members: object) -> Specification:
        """Read a job from a JSON object.

        Raises:
            SpecificationError: a member is missing, unknown or no text where it must be.
            OptionError: an option is refused.
        """
        if not isinstance(members, Mapping):
            raise SpecificationError("a job must be a JSON object")
        for name in members:
            if name not in MEMBERS:
                known = ", ".join(MEMBERS)
                raise SpecificationError(f"unknown member {name!r}; known are {known}", field=name)
        for name in ("logits", "output"):
            if members.get(name) is None:
                raise SpecificationError(f"{name} is required, a URL", field=name)
        given = {n: _listed(n, members[n]) for n in JOB.options if n in members}
        return cls.checked(
            {n: _text(n, members[n]) for n in TENSORS if members.get(n) is not None},
            _text("output", members["output"]),
            Options.from_keywords(given, JOB),
            members.get("on_error", "fail"),
        )

    @classmethod
    def checked(
        cls, tensors: Mapping[str, str], output: str, options: Options, on_error: object = "fail"
    ) -> Specification:
        """Return a job whose members fit together.

        Raises:
            SpecificationError: they do not.
        """
        if on_error not in ON_ERROR:
            raise SpecificationError(
                f"on_error must be one of {', '.join(ON_ERROR)}, not {on_error!r}",
                field="on_error",
            )
        divides = options.reduction == "mean" and set(DIVIDED) & set(options.outputs)
        if on_error == "skip" and divides and options.denominator is None:
            raise SpecificationError(
                "on_error=skip with reduction=mean needs a denominator: which rows are left out"
                " shows only after the first derivatives are written",
                field="denominator",
            )
        return cls(tuple(tensors.items()), output, options, str(on_error))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object, with the options that differ from their defaults."""
        changed = {n: getattr(self.options, n) for n in self.options.to_text(JOB)}
        options = {n: list(v) if isinstance(v, tuple) else v for n, v in changed.items()}
        return {
            **dict(self.tensors),
            "output": self.output,
            **({} if self.on_error == "fail" else {"on_error": self.on_error}),
            **options,
        }


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise SpecificationError(f"{name} must be a URL, a string", field=name)
    return value


def _listed(name: str, value: object) -> object:
    if isinstance(value, Mapping):
        raise SpecificationError(f"{name} must be a value, not an object", field=name)
    return tuple(value) if isinstance(value, list) else value
