"""States of a job, and the table of their transitions."""

from __future__ import annotations

from typing import Literal, get_args

from softxent_service.jobs.errors import TransitionError

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Event = Literal["start", "succeed", "fail", "cancel", "recover"]

STATES: tuple[State, ...] = get_args(State)

TRANSITIONS: dict[State, dict[Event, State]] = {
    "queued": {"start": "running", "cancel": "cancelled"},
    "running": {
        "succeed": "succeeded",
        "fail": "failed",
        "cancel": "cancelled",
        "recover": "queued",
    },
    "succeeded": {},
    "failed": {},
    "cancelled": {},
}
"""The last three are ends. The same job submitted again goes on where the last one stopped."""

ENDS: tuple[State, ...] = tuple(state for state, events in TRANSITIONS.items() if not events)


def after(state: State, event: Event) -> State:
    """Return the state that an event leads to.

    Raises:
        TransitionError: it cannot happen in this state.
    """
    found = TRANSITIONS[state].get(event)
    if found is None:
        raise TransitionError(f"a job that is {state} cannot {event}", field="state")
    return found
