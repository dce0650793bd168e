"""Access: whether others may reach the service, and with which keys."""

from __future__ import annotations

import socket
import sys

from softxent_service.keys import KeyRing, KeysError
from softxent_service.settings import Settings, is_loopback


def key_ring(settings: Settings) -> KeyRing | None:
    """Return the keys that are let in, None for everyone; end the process if they are wrong."""
    if settings.keys_file is None and settings.keys is None:
        return None
    try:
        return KeyRing((settings.keys or "").replace(";", "\n"), settings.keys_file)
    except KeysError as error:
        sys.exit(f"softxent: {settings.keys_file or 'keys'}: {error}")


def refuse_exposure(listener: socket.socket, settings: Settings, ring: KeyRing | None) -> None:
    """End the process where others could reach it without a key, unless that is asked for."""
    if ring is not None or settings.insecure or is_local(listener):
        return
    listener.close()
    sys.exit(
        f"softxent: {settings.host} can be reached from elsewhere, and there are no keys: "
        "set --keys-file (softxent key makes one), or --insecure if everyone may call"
    )


def is_local(listener: socket.socket) -> bool:
    """Tell whether only this machine can reach a socket."""
    return listener.family == socket.AF_UNIX or is_loopback(listener.getsockname()[0])
