"""numba: the loop that somebody who wants fast advantages on a CPU writes."""

import contextlib

import numba
import numpy as np

from cases import GAMMA, LAMBDA
from timing import Peer


def at(_):
    """There are no matrix products here whose precision could be another."""
    return contextlib.nullcontext()


@numba.njit(parallel=True)
def gae(rewards, values, dones, next_value, next_done, advantages, returns, blocks):
    """Each block of environments by a thread of its own."""
    steps, envs = rewards.shape
    gamma, decay, one = np.float32(GAMMA), np.float32(GAMMA * LAMBDA), np.float32(1.0)
    for block in numba.prange(blocks):
        first, end = block * envs // blocks, (block + 1) * envs // blocks
        last = np.zeros(end - first, np.float32)
        for back in range(steps):
            t = steps - 1 - back
            for n in range(first, end):
                final = t + 1 == steps
                alive = one - (next_done[n] if final else dones[t + 1, n])
                following = next_value[n] if final else values[t + 1, n]
                last[n - first] = (rewards[t, n] + gamma * following * alive - values[t, n]
                                   + decay * alive * last[n - first])
                advantages[t, n] = last[n - first]
                returns[t, n] = last[n - first] + values[t, n]


def gae_peers(case):
    def peer(blocks):
        outputs = np.empty_like(case.data["rewards"]), np.empty_like(case.data["rewards"])
        arguments = [case.data[key] for key in case.keys]
        call = lambda: gae(*arguments, *outputs, blocks)
        return Peer(call, lambda _: None, lambda: (call(), outputs)[1])
    peers = {"njit_1t": lambda: peer(1)}
    threads = numba.get_num_threads()
    if threads > 1 and case.data["rewards"].shape[1] >= 8 * threads:
        peers[f"njit_{threads}t"] = lambda: peer(threads)
    return peers


PEERS = {"gae": gae_peers}
