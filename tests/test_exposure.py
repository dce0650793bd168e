"""Who can reach an address: one answer for the setting and for the socket that came of it."""

from __future__ import annotations

import socket

import pytest

from softxent_service.access import is_local
from softxent_service.settings import is_loopback


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
    ],
)
def test_a_setting_and_its_socket_agree(host: str, local: bool) -> None:
    """Shared memory goes by the setting, keys by the socket."""
    assert is_loopback(host) is local
    found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, _, _, address = found[0]
    with socket.socket(family, kind) as listener:
        listener.bind(address)
        assert is_local(listener) is local


def test_a_socket_of_a_file_is_local() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        assert is_local(listener)
