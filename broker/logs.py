"""Structured logs: one event a line, with the launch it is about. Secrets are never handed to a logger."""

from __future__ import annotations

import logging
import sys

import structlog

from broker.settings import Settings


def configure(chosen: Settings) -> None:
    """Send our events, and warnings of the libraries, to standard error."""
    level = logging.getLevelNamesMapping().get(chosen.log_level.upper(), logging.INFO)
    logging.basicConfig(
        level=max(level, logging.WARNING), stream=sys.stderr, format="%(levelname)s %(name)s %(message)s"
    )
    as_json = chosen.log_format == "json"
    shown: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Tracebacks never show local variables: one of them may be a secret.
    transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    if as_json:
        shown += [structlog.processors.ExceptionRenderer(transformer), structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.plain_traceback
        shown += [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    structlog.configure(
        processors=shown,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
