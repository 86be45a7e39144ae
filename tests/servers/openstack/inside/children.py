"""Processes of the same program, which do one thing each: what was imported is shared, what is configured is not."""

from __future__ import annotations

import os
import sys
import traceback


def begun(work, *given):
    """A child that does this work and ends; its process id."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            work(*given)
        except SystemExit as ended:
            os._exit(ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def done(work, *given):
    """The same, waited for. Ends this program where it fails."""
    wait(begun(work, *given), work.__name__)


def wait(child, what):
    if os.waitpid(child, 0)[1]:
        raise SystemExit(f"“{what}” failed, for the reason above.")
