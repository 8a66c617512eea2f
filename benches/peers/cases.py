"""What is compared: names and shapes as in `ppo-kernels bench`, inputs, and float64 references."""

import math

import numpy as np

GAMMA, LAMBDA = 0.99, 0.95
CLIP, VF_COEF, ENT_COEF = 0.2, 0.5, 0.01
MAX_GRAD_NORM, ADAM_EPS = 0.5, 1e-5
LOG_2PI = math.log(2 * math.pi)

REDUCIBLE = ("mlp", "update")  # sections with matrix products, whose operands may be of less precision

GAE = [(128, 8), (2048, 1), (128, 4096), (16, 65536), (1024, 1024), (8192, 64)]
MLP = [(64, (4, 64, 64, 2)), (2048, (17, 64, 64, 6)), (4096, (48, 256, 256, 12)),
       (16384, (64, 512, 256, 128, 16)), (65536, (128, 1024, 1024, 32))]
LOSS = [(kind, width, batch) for kind, widths in (("cat", (2, 6, 18)), ("gauss", (6, 21)))
        for width in widths for batch in (1 << 14, 1 << 20)] + [("token", 32000, 4096)]
UPDATES = {
    "i_cartpole": dict(envs=4, steps=128, epochs=4, minibatches=4, obs=4, out=2, kind="cat",
                       hidden=(64, 64), activation="tanh", lr=2.5e-4, ent=0.01),
    "ii_mujoco": dict(envs=1, steps=2048, epochs=10, minibatches=32, obs=17, out=6, kind="gauss",
                      hidden=(64, 64), activation="tanh", lr=3e-4, ent=0.0),
    "iii_isaac": dict(envs=4096, steps=24, epochs=5, minibatches=4, obs=48, out=12, kind="gauss",
                      hidden=(512, 256, 128), activation="elu", lr=3e-4, ent=0.005),
    "iv_discrete": dict(envs=2048, steps=64, epochs=4, minibatches=4, obs=64, out=16, kind="cat",
                        hidden=(256, 256), activation="tanh", lr=2.5e-4, ent=0.01),
}

# Relative deviations of outputs and gradients of perceptrons. Rounding adds up over layers, forth and back: up to 2 unit roundoffs were
# measured with operands in tf32 or bf16 and sums in f32, and up to 4 with activations in bf16 as well. The bound is 8 of them; a single
# bias left out is off by 0.05 and more.
BOUND = {"f32": 1e-3, "tf32": 8 * 2**-11, "bf16": 8 * 2**-8}
# Of the first loss, of all, of the parameters, and how many tensors have not moved. A loss is a mean, in which most of the rounding
# cancels: up to 3e-4 and 1e-3 were measured in bf16. Parameters are off by more, since Adam's first steps are as long where the sign of a
# gradient is all but lost in rounding: by 0.16 of the way in bf16, by 0.08 in tf32. A single activation left out is off by 0.46 and more.
# (All on a CPU, which rounded operands to tf32 for that; iii and iv with a sixteenth of their environments.)
UPDATE_BOUNDS = {"f32": (1e-3, 1e-2, 0.2, 0), "tf32": (1e-3, 1e-2, 0.2, 0), "bf16": (2**-9, 1e-2, 0.3, 0)}


def relative(x, reference):
    """‖x − reference‖ / ‖reference‖; a NaN stays one."""
    x, reference = np.asarray(x, np.float64).ravel(), np.asarray(reference, np.float64).ravel()
    return float(np.linalg.norm(x - reference) / np.linalg.norm(reference))


def layers(rng, widths, last_gain):
    """[(W [out, in], b [out])] as float32."""
    gains = [1.4] * (len(widths) - 2) + [last_gain]
    return [((rng.standard_normal((o, i)) * gain / math.sqrt(i)).astype(np.float32),
             (0.1 * rng.standard_normal(o)).astype(np.float32))
            for i, o, gain in zip(widths, widths[1:], gains)]


def forward64(params, x, activation):
    """A perceptron in float64, on the host."""
    x = x.astype(np.float64)
    for n, (w, b) in enumerate(params):
        x = x @ w.astype(np.float64).T + b
        if n + 1 < len(params):
            x = np.tanh(x) if activation == "tanh" else np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    return x


def categorical_logp64(logits, actions):
    logits = logits.astype(np.float64)
    top = logits.max(-1)
    return logits[np.arange(len(actions)), actions] - top - np.log(np.exp(logits - top[:, None]).sum(-1))


def gaussian_logp64(mean, log_std, actions):
    z = (actions.astype(np.float64) - mean) * np.exp(-log_std.astype(np.float64))
    return (-0.5 * z * z - log_std - 0.5 * LOG_2PI).sum(-1)


class Gae:
    """CleanRL's advantages: dones[t] says that step t starts a new episode."""

    section = "gae"
    keys = ("rewards", "values", "dones", "next_value", "next_done")

    def __init__(self, steps, envs):
        self.name = f"gae/T{steps}_N{envs}"
        rng = np.random.default_rng(1)
        normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
        ends = lambda *shape: (rng.random(shape) < 0.02).astype(np.float32)
        self.data = dict(rewards=normal(steps, envs), values=normal(steps, envs), dones=ends(steps, envs),
                         next_value=normal(envs), next_done=ends(envs))
        rewards, values, dones, value, done = (self.data[key].astype(np.float64) for key in self.keys)
        self.advantages, last = np.zeros((steps, envs)), np.zeros(envs)
        for t in reversed(range(steps)):
            last = rewards[t] + GAMMA * value * (1 - done) - values[t] + GAMMA * LAMBDA * (1 - done) * last
            self.advantages[t], value, done = last, values[t], dones[t]
        self.returns = self.advantages + values

    def check(self, found, precision):
        deviation = {"advantages": relative(found[0], self.advantages), "returns": relative(found[1], self.returns)}
        return deviation, all(d <= 1e-3 for d in deviation.values())


def loss_name(kind, width, batch):
    return f"loss_token/N{batch}_V{width}" if kind == "token" else f"loss_{kind}/A{width}_B{batch}"


class Loss:
    """The clipped loss with normalised advantages, clipped values and entropy, and its gradients through a head. Of a vocabulary: the clipped
    loss alone, of advantages as they are."""

    section = "loss"

    def __init__(self, kind, width, batch):
        self.name, self.kind = loss_name(kind, width, batch), kind
        rng = np.random.default_rng(1)
        normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
        self.head, self.values = normal(batch, width), normal(batch)
        self.log_std = 0.3 * normal(width)
        if kind == "token":
            self.head *= 2
        if kind != "gauss":
            self.actions = rng.integers(0, width, batch)
            logp = categorical_logp64(self.head, self.actions)
        else:
            self.actions = self.head + np.exp(self.log_std) * normal(batch, width)
            logp = gaussian_logp64(self.head, self.log_std, self.actions)
        # A sample on the edge of its clip takes either side by rounding, and one of them would show in the check: none is near.
        ratio = 0.15 * rng.standard_normal(batch)
        for edge in (math.log(1 - CLIP), math.log(1 + CLIP)):
            ratio = np.where(np.abs(ratio - edge) < 1e-3, edge + 2e-3, ratio)
        moved = 0.2 * rng.standard_normal(batch)
        moved = np.where(np.abs(np.abs(moved) - CLIP) < 1e-3, 0.0, moved)
        self.old_logp, self.old_values = (logp - ratio).astype(np.float32), (self.values - moved).astype(np.float32)
        self.advantages, self.returns = normal(batch), self.old_values + normal(batch)
        clipped = self.old_values + np.clip(self.values - self.old_values, -CLIP, CLIP)
        middle = (self.values + clipped) / 2
        self.returns = np.where(np.abs(self.returns - middle) < 1e-3, middle + 2e-3, self.returns).astype(np.float32)
        self.reference = None  # loss and gradients, set by whoever has automatic differentiation in float64

    def differentiated(self):
        """Inputs that gradients are of, as the loss takes them."""
        return {"cat": [self.head, self.values], "gauss": [self.head, self.log_std, self.values], "token": [self.head]}[self.kind]

    def constants(self):
        inputs = [self.actions, self.old_logp, self.advantages]
        return inputs if self.kind == "token" else [*inputs, self.returns, self.old_values]

    def check(self, found, precision):
        loss, gradients = found
        deviation = {"loss": abs(float(loss) - self.reference[0]) / abs(self.reference[0])}
        deviation |= {f"gradient {i}": relative(g, r) for i, (g, r) in enumerate(zip(gradients, self.reference[1]))}
        return deviation, all(d <= 1e-3 for d in deviation.values())


class Mlp:
    """tanh layers, linear output; `backward` adds the gradients of all parameters."""

    section = "mlp"

    def __init__(self, batch, widths, backward):
        shape = f"B{batch}_" + "-".join(map(str, widths))
        self.name, self.backward = f"mlp_{'fwdbwd' if backward else 'fwd'}/{shape}", backward
        rng = np.random.default_rng(1)
        self.params = layers(rng, widths, 1.0)
        self.x = rng.standard_normal((batch, widths[0])).astype(np.float32)
        self.d_output = rng.standard_normal((batch, widths[-1])).astype(np.float32)
        self.reference = None

    def check(self, found, precision):
        deviation = {f"output {i}": relative(f, r) for i, (f, r) in enumerate(zip(found, self.reference))}
        return deviation, len(found) == len(self.reference) and all(d <= BOUND[precision] for d in deviation.values())


class Update:
    """A whole update: advantages, then epochs × minibatches of gather, forward, loss, backward, clip, Adam."""

    section = "update"

    def __init__(self, name):
        self.name, self.config = f"update/{name}", UPDATES[name]
        c, rng = self.config, np.random.default_rng(1)
        steps, envs, rows = c["steps"], c["envs"], c["steps"] * c["envs"]
        self.actor = layers(rng, (c["obs"], *c["hidden"], c["out"]), 0.5)
        self.critic = layers(rng, (c["obs"], *c["hidden"], 1), 1.0)
        self.log_std = np.zeros(c["out"], np.float32)
        obs = rng.standard_normal((rows, c["obs"])).astype(np.float32)
        # The rollout is a slightly older policy's, so that ratios differ from 1 and clipping acts.
        older = lambda net: [(w + 0.05 / math.sqrt(w.shape[1]) * rng.standard_normal(w.shape), b) for w, b in net]
        head = forward64(older(self.actor), obs, c["activation"])
        if c["kind"] == "cat":
            actions = (head + rng.gumbel(size=head.shape)).argmax(-1)
            logp = categorical_logp64(head, actions)
        else:
            actions = (head + rng.standard_normal(head.shape)).astype(np.float32)
            logp = gaussian_logp64(head, self.log_std, actions)
        values = forward64(older(self.critic), obs, c["activation"])[:, 0]
        grid = lambda x: np.asarray(x, np.float32).reshape(steps, envs)
        self.rollout = dict(obs=obs, actions=actions, logp=logp.astype(np.float32), values=grid(values),
                            rewards=grid(rng.standard_normal(rows)), dones=grid(rng.random(rows) < 0.02),
                            next_value=rng.standard_normal(envs).astype(np.float32),
                            next_done=(rng.random(envs) < 0.02).astype(np.float32))
        self.permutations = np.stack([rng.permutation(rows) for _ in range(c["epochs"])])
        self.start = self.flat(self.actor, self.critic, self.log_std)
        self.reference = None  # losses of all minibatches, parameters at the end

    def flat(self, actor, critic, log_std):
        """All parameters in one order. `log_std` counts where the policy is Gaussian."""
        tensors = [t for pair in [*actor, *critic] for t in pair]
        tensors += [log_std] if self.config["kind"] == "gauss" else []
        self.ends = np.cumsum([np.size(t) for t in tensors])[:-1]  # of each tensor in the whole
        return np.concatenate([np.asarray(t, np.float64).ravel() for t in tensors])

    def check(self, found, precision):
        """The first minibatch closely, the end loosely: one sample that crosses a clip's edge by rounding moves all that follows. A tensor
        that was left out, a forgotten bias say, has no gradient and does not move, which may show in little else."""
        losses, expected = np.asarray(found[0], np.float64), np.asarray(self.reference[0], np.float64)
        deviation = {
            "first loss": float(abs(losses[0] / expected[0] - 1)),
            "losses": float(np.abs(losses - expected).mean() / np.abs(expected).mean()),
            "parameters": float(np.linalg.norm(found[1] - self.reference[1]) / np.linalg.norm(self.reference[1] - self.start)),
            "unmoved tensors": sum(not change.any() for change in np.split(found[1] - self.start, self.ends)),
        }
        return deviation, all(d <= limit for d, limit in zip(deviation.values(), UPDATE_BOUNDS[precision]))


def every():
    """All cases, as (name, how to make it): making one draws its inputs."""
    cases = [(f"update/{name}", lambda name=name: Update(name)) for name in UPDATES]
    cases += [(f"gae/T{t}_N{n}", lambda t=t, n=n: Gae(t, n)) for t, n in GAE]
    cases += [(loss_name(*loss), lambda loss=loss: Loss(*loss)) for loss in LOSS]
    for batch, widths in MLP:
        for backward in (False, True):
            name = f"mlp_{'fwdbwd' if backward else 'fwd'}/B{batch}_" + "-".join(map(str, widths))
            cases.append((name, lambda b=batch, w=widths, g=backward: Mlp(b, w, g)))
    return cases
