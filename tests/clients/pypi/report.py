"""Reports each check as one line of JSON, which run.py reads."""

import contextlib
import json


@contextlib.contextmanager
def check(name):
    """Runs a check. An exception is a failure."""
    why = None
    try:
        yield
    except Exception as error:  # Clients raise exceptions of any type.
        why = f"{type(error).__name__}: {error}"[:300]
    print(json.dumps({"check": name, "why": why}), flush=True)


def expect(condition, why):
    if not condition:
        raise AssertionError(why)
