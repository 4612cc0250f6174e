"""Reports of checks: one JSON object a line, read by run.py."""

import contextlib
import json


@contextlib.contextmanager
def check(name):
    """Runs a check; an exception is a failure."""
    why = None
    try:
        yield
    except Exception as error:  # Whatever a client raises is its failure.
        why = f"{type(error).__name__}: {error}"[:300]
    print(json.dumps({"check": name, "why": why}), flush=True)


def expect(condition, why):
    if not condition:
        raise AssertionError(why)
