"""What is measured side by side: ours, bare servers, and every peer that is installed.

All servers run at the same time, so that each round visits them in turn. Those that wait take 0.3 %
of a core at most, Ray Serve 6 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field

import http_forms as forms
from http_forms import Form
from raw import RawConnection
from servers import Ready, Server, bare, is_installed, peer, service
from timing import progress

OURS = "softxent"
BARE = ("raw-echo", "asgi-echo", "fastapi-echo", "dict-route", "ready-route")


@dataclass(frozen=True)
class Peer:
    """A serving stack: its name in tables, and the forms that it is asked in."""

    title: str
    binary: Form
    json: Form


PEERS = {
    "fastapi": Peer("FastAPI + torch", forms.PLAIN, forms.LISTS),
    "triton": Peer("Triton, Python backend", forms.TRITON, forms.TRITON_JSON),
    "mlserver": Peer("MLServer", forms.PLAIN, forms.MLSERVER_JSON),
    "litserve": Peer("LitServe", forms.PLAIN, forms.LISTS),
    "bentoml": Peer("BentoML", forms.PLAIN, forms.LISTS),
    "ray": Peer("Ray Serve", forms.PLAIN, forms.LISTS),
}


@dataclass
class Servers:
    """The servers that run, by name; peers that do not are in `missing`, with the reason."""

    running: dict[str, Server] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def port(self, name: str) -> int:
        """Return the port of a server that runs."""
        return self.running[name].port

    def peers(self) -> dict[str, Peer]:
        """Return the peers that run."""
        return {name: peer for name, peer in PEERS.items() if name in self.running}

    def missing_rows(self, columns: int) -> list[list[str]]:
        """Return rows of a table for peers that do not run."""
        empty = [""] * (columns - 2)
        return [[PEERS[name].title, why, *empty] for name, why in self.missing.items()]


def is_answering(form: Form) -> Ready:
    """Return what tells whether a server on a port answers one row in a form."""
    request = form.request(forms.batch(1, 10))

    def ready(port: int) -> bool:
        with suppress(OSError, RuntimeError), closing(RawConnection(port)) as connection:
            connection.post(request)
            return True
        return False

    return ready


@contextmanager
def started(names: Sequence[str]) -> Iterator[Servers]:
    """Start ours, the bare servers and the peers of those names; end them."""
    servers = Servers()
    with ExitStack() as stack:
        servers.running[OURS] = stack.enter_context(service())
        for name in BARE:
            servers.running[name] = stack.enter_context(bare(name))
        for name in names:
            _start(name, servers, stack)
        yield servers


def _start(name: str, servers: Servers, stack: ExitStack) -> None:
    if not is_installed(name):
        servers.missing[name] = "not installed"
        return
    progress(f"starting {name}")
    ready = is_answering(PEERS[name].binary)
    try:
        servers.running[name] = stack.enter_context(peer(name, ready))
    except RuntimeError as error:
        progress(str(error))
        servers.missing[name] = "did not start"
