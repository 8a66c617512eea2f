"""Timing one peer, and telling how busy others keep the machine."""

import os
import statistics
import time
from dataclasses import dataclass
from typing import Any, Callable, Optional

SHORTEST_SAMPLE = 4e-3
MOST_CALLS = 2000


@dataclass
class Peer:
    """`call` does the work, `sync` waits for what it returned, `found` returns what the check wants, `reset` runs before each call
    where one changes what the next would do."""

    call: Callable[[], Any]
    sync: Callable[[Any], Any]
    found: Callable[[], Any]
    reset: Optional[Callable[[], None]] = None
    inner: int = 0

    def sample(self, calls):
        if self.reset:
            self.reset()
            self.sync(None)
        start = time.perf_counter()
        for _ in range(calls):
            result = self.call()
            # On the CPU some frameworks would run independent calls at the same time.
            if os.environ.get("PEERS_DEVICE") == "cpu":
                self.sync(result)
        self.sync(result)
        return (time.perf_counter() - start) / calls

    def median(self, seconds):
        """Median seconds a call over about `seconds`; the first time, after a warm-up, and with as many calls in one sample as the
        clock needs."""
        if not self.inner:
            self.sample(1)
            self.inner = 1 if self.reset else max(1, min(MOST_CALLS, round(SHORTEST_SAMPLE / self.sample(1))))
        first = self.sample(self.inner)
        took = first * self.inner
        # What takes longer than all of its time has one sample a round.
        more = 0 if took > seconds else int(max(2, min(100, seconds / took)))
        return statistics.median([first, *(self.sample(self.inner) for _ in range(more))])


def _busy():
    with open("/proc/stat") as file:
        ticks = [int(x) for x in file.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def foreign_cores(seconds=1.0):
    """Cores that other programs keep busy while this one sleeps; None where the system does not tell."""
    try:
        before = _busy()
    except OSError:
        return None
    time.sleep(seconds)
    return round((_busy() - before) / seconds, 2)
