"""Peak memory of a worker: it must not depend on how large the table is."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from handlers.core.engine import Copy

from .endpoint import Endpoint, endpoint
from .worker import UNLIMITED, worker

SMALL, LARGE = 10_000, 1_000_000


def _peak(target: Endpoint, items: int) -> float:
    """Peak memory in MB of a process of its own that copies a table of so many items."""
    source, copy = f"source-{items}", f"copy-{items}"
    target.create_table(source, capacity=UNLIMITED)
    target.fill(source, items)
    target.create_table(copy, like=source, capacity=UNLIMITED)
    command = [sys.executable, "-m", "bench.memory", target.url, source, copy]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    # Of the large one the counts must do: to compare a million items takes the endpoint minutes.
    counted = target.stats()["tables"][copy]
    different = (counted["items"], counted["puts"]) != (items, items)
    if different or (items == SMALL and any(target.differences(source, copy).values())):
        raise RuntimeError(f"{copy} is not a copy of {source}: what was measured is not a copy")
    return float(done.stdout)


def measure() -> dict[str, Any]:
    """Peak memory of the larger copy, and how much more it is than that of the smaller one."""
    with endpoint() as target:
        small, large = _peak(target, SMALL), _peak(target, LARGE)
    return {
        "peakMemoryMb": round(large, 1),
        "memoryGrowth": round(large / small, 3),
        "peakMemoryMbOfTheSmall": round(small, 1),
        "fixture": f"copies of {SMALL:,} and of {LARGE:,} items of 1 KB, each by a process of its own",
    }


def _own_peak() -> float:
    """Peak memory of this process in MB.

    Linux's getrusage says that of the process it was forked from, where that is larger; ``VmHWM`` begins anew.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


if __name__ == "__main__":
    _, url, source_name, copy_name = sys.argv
    with worker(Endpoint(url=url)) as one:
        one.run(Copy(source_table_name=source_name, writer=one.writer(copy_name)))
    sys.stdout.write(str(_own_peak()))
