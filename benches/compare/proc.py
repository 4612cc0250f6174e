"""Reads CPU time and memory of a process and its children from /proc, and assigns processes to cores."""

import contextlib
import os
import pathlib
from collections.abc import Iterable, Iterator

TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """Returns the process and its descendants."""
    pids = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            pids += tree(int(child))
    return pids


@contextlib.contextmanager
def apart(pids: Iterable[int]) -> Iterator[str]:
    """Moves these processes and their descendants to the last core, with priority. Within the block, this process and the
    programs that it starts use the other cores. Changes nothing if there is only one core. Yields a description."""
    *others, last = sorted(os.sched_getaffinity(0))
    if not others:
        yield "all on one core"
        return
    are_first = True
    for each in (process for pid in pids for process in tree(pid)):
        for thread in pathlib.Path(f"/proc/{each}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {last})
            are_first &= _first_in_line(int(thread.name))
    os.sched_setaffinity(0, others)
    try:
        yield f"proxies on a core of their own, {'real-time' if are_first else 'NOT real-time, for want of permission'}"
    finally:
        os.sched_setaffinity(0, {*others, last})


def _first_in_line(thread: int) -> bool:
    """Gives a process real-time priority on its core, if that is permitted."""
    try:
        os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return False
    return True


def cpu_seconds(pid: int) -> float:
    """Returns the user and system time of the process and its descendants so far."""
    total = 0
    for each in tree(pid):
        fields = pathlib.Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def rss_bytes(pid: int) -> int:
    """Returns the resident memory of the process and its descendants."""
    return sum(_status_kb(each, "VmRSS") for each in tree(pid)) * 1024


def peak_bytes(pid: int) -> int:
    """Returns the maximum resident memory of the process so far."""
    return _status_kb(pid, "VmHWM") * 1024


def _status_kb(pid: int, field: str) -> int:
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def cpu_model() -> str:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
