"""JAX: everything jitted; a whole update is one function of two nested scans, as in PureJaxRL."""

import contextlib
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from cases import ADAM_EPS, CLIP, ENT_COEF, GAMMA, LAMBDA, LOG_2PI, MAX_GRAD_NORM, VF_COEF
from timing import Peer


# Without its CUDA plugin it would compute on the CPU, and only warn.
if os.environ.get("PEERS_DEVICE") == "cuda" and jax.default_backend() != "gpu":
    raise ImportError(f"JAX computes on {jax.default_backend()}, not on a CUDA device")

PRECISION = "f32"


@contextlib.contextmanager
def at(precision):
    """What is built and called meanwhile makes products of that precision. A GPU's default for f32 is tf32, also under the name of
    "bfloat16"; hence bf16 by casts, as Flax makes them. A CPU computes as it does by default, which is in f32."""
    global PRECISION
    before, PRECISION = PRECISION, precision
    setting = {"f32": "highest", "tf32": "tensorfloat32"}.get(precision) if jax.default_backend() == "gpu" else None
    try:
        with jax.default_matmul_precision(setting):
            yield
    finally:
        PRECISION = before


def put(x):
    x = np.asarray(x)
    return jax.device_put(x.astype(np.int32) if x.dtype == np.int64 else x)


def host(x):
    return np.asarray(x, np.float64)


def gae(rewards, values, dones, next_value, next_done):
    alive = 1.0 - jnp.concatenate([dones[1:], next_done[None]])
    following = jnp.concatenate([values[1:], next_value[None]])

    def step(last, row):
        reward, value, after, keeps = row
        last = reward + GAMMA * after * keeps - value + GAMMA * LAMBDA * keeps * last
        return last, last
    advantages = lax.scan(step, jnp.zeros_like(next_value), (rewards, values, following, alive), reverse=True)[1]
    return advantages, advantages + values


def gae_associative(rewards, values, dones, next_value, next_done):
    alive = 1.0 - jnp.concatenate([dones[1:], next_done[None]])
    delta = rewards + GAMMA * jnp.concatenate([values[1:], next_value[None]]) * alive - values
    then = lambda later, earlier: (earlier[0] * later[0], earlier[1] + earlier[0] * later[1])
    advantages = lax.associative_scan(then, (GAMMA * LAMBDA * alive, delta), reverse=True)[1]
    return advantages, advantages + values


def gae_peers(case):
    arguments = [put(case.data[key]) for key in case.keys]

    def peer(function):
        function = jax.jit(function)
        call = lambda: function(*arguments)
        return Peer(call, jax.block_until_ready, lambda: [host(x) for x in call()])
    return {"jit_scan": lambda: peer(gae), "jit_associative_scan": lambda: peer(gae_associative)}


def categorical(logits, actions):
    logp = jax.nn.log_softmax(logits, -1)
    return jnp.take_along_axis(logp, actions[:, None], -1)[:, 0], -(jnp.exp(logp) * logp).sum(-1)


def gaussian(mean, log_std, actions):
    z = (actions - mean) * jnp.exp(-log_std)
    return (-0.5 * z * z - log_std - 0.5 * LOG_2PI).sum(-1), (log_std + 0.5 + 0.5 * LOG_2PI).sum(-1)


def objective(logp, entropy, values, old_logp, advantages, returns, old_values, ent_coef=ENT_COEF):
    ratio = jnp.exp(logp - old_logp)
    advantages = (advantages - advantages.mean()) / (advantages.std(ddof=1) + 1e-8)
    surrogate = jnp.maximum(-advantages * ratio, -advantages * jnp.clip(ratio, 1 - CLIP, 1 + CLIP)).mean()
    clipped = old_values + jnp.clip(values - old_values, -CLIP, CLIP)
    value_loss = 0.5 * jnp.maximum((values - returns) ** 2, (clipped - returns) ** 2).mean()
    return surrogate - ent_coef * entropy.mean() + VF_COEF * value_loss


def token_loss(logits, actions, old_logp, advantages):
    logp = jnp.take_along_axis(logits, actions[:, None], -1)[:, 0] - jax.nn.logsumexp(logits, -1)
    ratio = jnp.exp(logp - old_logp)
    return jnp.maximum(-advantages * ratio, -advantages * jnp.clip(ratio, 1 - CLIP, 1 + CLIP)).mean()


def loss_peers(case):
    heads, rest = [put(x) for x in case.differentiated()], [put(x) for x in case.constants()]

    def loss(heads, actions, *rest):
        if case.kind == "token":
            return token_loss(*heads, actions, *rest)
        logp, entropy = (categorical if case.kind == "cat" else gaussian)(*heads[:-1], actions)
        return objective(logp, entropy, heads[-1], *rest)

    def peer():
        function = jax.jit(jax.value_and_grad(loss))
        call = lambda: function(heads, *rest)
        return Peer(call, jax.block_until_ready, lambda: (lambda l, g: (float(l), [host(x) for x in g]))(*call()))
    return {"jit": peer}


def perceptron(params, x, activation=jnp.tanh):
    for n, (w, b) in enumerate(params):
        x = x @ w.T + b
        x = activation(x) if n + 1 < len(params) else x
    return x


def bf16_perceptron(params, x, activation=jnp.tanh):
    """Products and activations in bf16, of parameters in f32, to an output in f32."""
    params, x = jax.tree.map(lambda t: t.astype(jnp.bfloat16), (params, x))
    return perceptron(params, x, activation).astype(jnp.float32)


def network():
    return bf16_perceptron if PRECISION == "bf16" else perceptron


def mlp_peers(case):
    params = [tuple(map(put, pair)) for pair in case.params]
    x, d_output = put(case.x), put(case.d_output)

    def both(network, params, x, d_output):
        if not case.backward:
            return [network(params, x)]
        y, pull = jax.vjp(lambda p: network(p, x), params)
        return [y, *jax.tree_util.tree_leaves(pull(d_output))]

    def peer():
        function = jax.jit(functools.partial(both, network()))
        call = lambda: function(params, x, d_output)
        return Peer(call, jax.block_until_ready, lambda: [host(x) for x in call()])
    return {"jit": peer}


def update_function(case, shuffles):
    """`shuffles`: whether the function draws permutations from keys or is given them."""
    c = case.config
    rows = c["steps"] * c["envs"]
    activation, forward = jnp.tanh if c["activation"] == "tanh" else jax.nn.elu, network()
    optimizer = optax.chain(optax.clip_by_global_norm(MAX_GRAD_NORM), optax.adam(c["lr"], eps=ADAM_EPS))

    def loss(params, obs, actions, *rest):
        head, values = forward(params["actor"], obs, activation), forward(params["critic"], obs, activation)[:, 0]
        logp, entropy = categorical(head, actions) if c["kind"] == "cat" else gaussian(head, params["log_std"], actions)
        return objective(logp, entropy, values, *rest, c["ent"])

    def step(carry, minibatch):
        params, state = carry
        value, gradients = jax.value_and_grad(loss)(params, *minibatch)
        changes, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, changes), state), value

    def update(params, rollout, sources):
        r = rollout
        advantages, returns = gae(r["rewards"], r["values"], r["dones"], r["next_value"], r["next_done"])
        flat = [r["obs"], r["actions"], r["logp"], advantages.ravel(), returns.ravel(), r["values"].ravel()]

        def epoch(carry, source):
            order = jax.random.permutation(source, rows) if shuffles else source
            cut = lambda x: x[order].reshape(c["minibatches"], -1, *x.shape[1:])
            return lax.scan(step, carry, [cut(x) for x in flat])
        (params, _), losses = lax.scan(epoch, (params, optimizer.init(params)), sources)
        return params, losses.ravel()
    return jax.jit(update)


def update_peers(case):
    def peer():
        params = {"actor": [tuple(map(put, p)) for p in case.actor], "critic": [tuple(map(put, p)) for p in case.critic]}
        if case.config["kind"] == "gauss":
            params["log_std"] = put(case.log_std)
        rollout = {key: put(x) for key, x in case.rollout.items()}
        keys = jax.random.split(jax.random.PRNGKey(1), case.config["epochs"])
        function = update_function(case, shuffles=True)

        def found():
            end, losses = update_function(case, shuffles=False)(params, rollout, put(case.permutations))
            return host(losses), case.flat(end["actor"], end["critic"], end.get("log_std"))
        return Peer(lambda: function(params, rollout, keys), jax.block_until_ready, found)
    return {"jit_single_scan": peer}


PEERS = {"gae": gae_peers, "loss": loss_peers, "mlp": mlp_peers, "update": update_peers}
