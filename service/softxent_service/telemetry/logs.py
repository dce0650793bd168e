"""Log format: one JSON object a line, or text for people.

What the service says of itself goes through `logging` and structlog's formatter. Lines of requests
come by the thousand a second, where a structlog logger took 19 us each: they are rendered at once,
and written when some have gathered.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from softxent_service.settings import Settings


def configure_logging(settings: Settings) -> Processor:
    """Let every logger write to standard error; return what makes a line of an event."""
    as_json = settings.log_format == "json" or not (
        settings.log_format == "text" or sys.stderr.isatty()
    )
    render = _json if as_json else _text(sys.stderr)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                render,
            ],
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", key="time"),
            ],
        )
    )
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    logging.captureWarnings(True)
    threading.excepthook = _tell_faults
    return render


def _tell_faults(failed: threading.ExceptHookArgs) -> None:
    """Log what ends a thread, which Python would write as it is."""
    if failed.exc_value is not None and not isinstance(failed.exc_value, SystemExit):
        logging.getLogger("softxent").error("a thread failed", exc_info=failed.exc_value)


def _json(_logger: WrappedLogger, _name: str, event: EventDict) -> str:
    """Return one line of JSON in visible ASCII, which moves no terminal's cursor."""
    try:
        # What is no JSON value is a programmer's own, never a client's.
        text = orjson.dumps(event, default=str).decode()
    except TypeError:
        # A lone surrogate, as names of files that are not UTF-8 have.
        text = orjson.dumps(_without_surrogates(event), default=str).decode()
    return text if text.isascii() and "\x7f" not in text else _INVISIBLE.sub(_as_escape, text)


_INVISIBLE = re.compile("[^ -~]")


def _as_escape(found: re.Match[str]) -> str:
    code = found[0].encode("utf-16-be").hex()
    return "".join(f"\\u{code[i : i + 4]}" for i in range(0, len(code), 4))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _without_surrogates(one) for name, one in value.items()}
    return str(value).encode("utf-8", "backslashreplace").decode()


def _text(stream: TextIO) -> Processor:
    console = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(),
        timestamp_key="time",
        pad_event_to=0,
        sort_keys=False,
        repr_native_str=True,
        # The default shows the locals of every frame, bodies and keys among them.
        exception_formatter=structlog.dev.plain_traceback,
    )

    def render(logger: WrappedLogger, name: str, event: EventDict) -> Any:
        plain = {key: _plain(event[key]) for key in ("event", "exception") if key in event}
        return console(logger, name, {**event, **plain})

    return render


def _plain(value: Any) -> str:
    """Return lines that cannot move a terminal's cursor; other values are shown by repr."""
    return "\n".join(map(_escaped, str(value).splitlines()))


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
