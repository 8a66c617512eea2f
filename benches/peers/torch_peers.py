"""PyTorch: eager as CleanRL writes it, compiled, and as CUDA graphs. Also the float64 references of what needs gradients."""

import contextlib

import numpy as np
import torch
import torch.nn.functional as F

from cases import ADAM_EPS, CLIP, ENT_COEF, GAMMA, LAMBDA, LOG_2PI, MAX_GRAD_NORM, VF_COEF
from timing import Peer

DEVICE = torch.device("cpu")
PRECISION = "f32"


def use(device, threads):
    """All tensors go to `device` ("cpu" or "cuda")."""
    global DEVICE
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: this PyTorch finds no CUDA device (torch.cuda.is_available() is False)")
    DEVICE = torch.device(device)
    torch.set_num_threads(threads)


def tensor(x, dtype=torch.float32):
    x = torch.from_numpy(np.ascontiguousarray(x))
    return x.to(DEVICE) if x.dtype == torch.int64 else x.to(DEVICE, dtype)


def host(x):
    return x.detach().to("cpu", torch.float64).numpy()


def sync(_=None):
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


@contextlib.contextmanager
def at(precision):
    """What is built and called meanwhile makes products of that precision. tf32 is a switch of the process that is read at each call, at
    compilation and at capture, and that compiled code is guarded by; a CPU has no tf32 and stays at f32."""
    global PRECISION
    before = PRECISION, torch.get_float32_matmul_precision()
    PRECISION = precision
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        PRECISION = before[0]
        torch.set_float32_matmul_precision(before[1])


def compiled(function):
    # Variants that share code have compilations of their own; one too many would silently run eagerly.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(function, dynamic=False)


def graphed(call):
    """`call`, whose inputs have to stay where they are, as one CUDA graph. The next call overwrites what one has returned."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # nothing may be compiled, tuned or set up during a capture
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()

    def replay():
        graph.replay()
        return results
    return replay


def on_cuda(**variants):
    return variants if DEVICE.type == "cuda" else {}


# Advantages

def gae_loop(rewards, values, dones, next_value, next_done):
    advantages, last = torch.zeros_like(rewards), 0
    for t in reversed(range(len(rewards))):
        alive = 1.0 - (next_done if t + 1 == len(rewards) else dones[t + 1])
        following = next_value if t + 1 == len(rewards) else values[t + 1]
        last = rewards[t] + GAMMA * following * alive - values[t] + GAMMA * LAMBDA * alive * last
        advantages[t] = last
    return advantages, advantages + values


def gae_doubling(rewards, values, dones, next_value, next_done):
    """A_t = d_t + c_t·A_{t+1} in log₂ T passes over the whole rollout: few launches for more work."""
    alive = 1.0 - torch.cat([dones[1:], next_done[None]])
    d = rewards + GAMMA * torch.cat([values[1:], next_value[None]]) * alive - values
    c, reach = GAMMA * LAMBDA * alive, 1
    while reach < len(d):
        d = torch.cat([d[:-reach] + c[:-reach] * d[reach:], d[-reach:]])
        c = torch.cat([c[:-reach] * c[reach:], torch.zeros_like(c[-reach:])])
        reach *= 2
    return d, d + values


def gae_peers(case):
    arguments = [tensor(case.data[key]) for key in case.keys]

    def peer(function, finish=lambda call: call):
        with torch.no_grad():
            function(*arguments)
        call = finish(torch.no_grad()(lambda: function(*arguments)))
        return Peer(call, sync, lambda: [host(x) for x in call()])
    return {"eager_loop": lambda: peer(gae_loop), "eager_doubling": lambda: peer(gae_doubling),
            "compile_doubling": lambda: peer(compiled(gae_doubling)),
            **on_cuda(compile_cudagraph=lambda: peer(compiled(gae_doubling), graphed))}


# Losses

def categorical(logits, actions):
    logp = torch.log_softmax(logits, -1)
    return logp.gather(-1, actions[:, None])[:, 0], -(logp.exp() * logp).sum(-1)


def gaussian(mean, log_std, actions):
    z = (actions - mean) * torch.exp(-log_std)
    return (-0.5 * z * z - log_std - 0.5 * LOG_2PI).sum(-1), (log_std + 0.5 + 0.5 * LOG_2PI).sum(-1)


def objective(logp, entropy, values, old_logp, advantages, returns, old_values, ent_coef=ENT_COEF):
    ratio = (logp - old_logp).exp()
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    surrogate = torch.max(-advantages * ratio, -advantages * torch.clamp(ratio, 1 - CLIP, 1 + CLIP)).mean()
    clipped = old_values + torch.clamp(values - old_values, -CLIP, CLIP)
    value_loss = 0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2).mean()
    return surrogate - ent_coef * entropy.mean() + VF_COEF * value_loss


def token_loss(logits, actions, old_logp, advantages):
    logp = logits.gather(-1, actions[:, None])[:, 0] - torch.logsumexp(logits, -1)
    ratio = (logp - old_logp).exp()
    return torch.max(-advantages * ratio, -advantages * torch.clamp(ratio, 1 - CLIP, 1 + CLIP)).mean()


def loss_of_head(kind):
    if kind == "token":
        return token_loss
    if kind == "cat":
        return lambda head, values, actions, *rest: objective(*categorical(head, actions), values, *rest)
    return lambda head, log_std, values, actions, *rest: objective(*gaussian(head, log_std, actions), values, *rest)


def loss_call(case, function, dtype=torch.float32):
    heads = [tensor(x, dtype).requires_grad_() for x in case.differentiated()]
    rest = [tensor(x, dtype) for x in case.constants()]

    def call():
        loss = function(*heads, *rest)
        return loss.detach(), torch.autograd.grad(loss, heads)
    return call


def loss_peers(case):
    found = lambda call: (lambda loss, gradients: (float(loss), [host(g) for g in gradients]))(*call())
    case.reference = found(loss_call(case, loss_of_head(case.kind), torch.float64))

    def peer(function, finish=lambda call: call):
        call = finish(loss_call(case, function))
        return Peer(call, sync, lambda: found(call))
    loss = loss_of_head(case.kind)
    return {"eager": lambda: peer(loss), "compile": lambda: peer(compiled(loss)),
            **on_cuda(compile_cudagraph=lambda: peer(compiled(loss), graphed))}


# Perceptrons

def perceptron(params, x, activation=torch.tanh):
    for n in range(0, len(params), 2):
        x = F.linear(x, params[n], params[n + 1])
        x = activation(x) if n + 2 < len(params) else x
    return x


def autocast_perceptron(params, x, activation=torch.tanh):
    """Products and activations in bf16, of parameters in f32, to an output in f32. No cache: it casts nothing twice, and what it keeps
    could be an allocation of a graph that is being captured."""
    with torch.autocast(DEVICE.type, torch.bfloat16, cache_enabled=False):
        return perceptron(params, x, activation).float()


def network():
    return autocast_perceptron if PRECISION == "bf16" else perceptron


def mlp_call(case, function, dtype=torch.float32):
    params = [tensor(t, dtype).requires_grad_(case.backward) for pair in case.params for t in pair]
    x, d_output = tensor(case.x, dtype), tensor(case.d_output, dtype)

    def call():
        y = function(params, x)
        return [y, *torch.autograd.grad(y, params, d_output)] if case.backward else [y]
    return call


def mlp_peers(case):
    case.reference = [host(x) for x in mlp_call(case, perceptron, torch.float64)()]

    def peer(function, finish=lambda call: call):
        call = finish(mlp_call(case, function))
        return Peer(call, sync, lambda: [host(x) for x in call()])
    return {"eager": lambda: peer(network()), "compile": lambda: peer(compiled(network())),
            **on_cuda(compile_cudagraph=lambda: peer(compiled(network()), graphed))}


# Whole updates

class Learner:
    """What all updates share: parameters (actor, critic, log-std) and a rollout."""

    def __init__(self, case, dtype=torch.float32):
        self.case, self.c, self.network = case, case.config, network()
        pairs = [t for pair in [*case.actor, *case.critic] for t in pair]
        self.start = [tensor(t, dtype) for t in pairs + ([case.log_std] if self.c["kind"] == "gauss" else [])]
        self.rollout = {key: tensor(x, dtype) for key, x in case.rollout.items()}
        self.rows = self.c["steps"] * self.c["envs"]
        self.size = self.rows // self.c["minibatches"]
        self.depth = 2 * len(case.actor)
        self.activation = torch.tanh if self.c["activation"] == "tanh" else F.elu
        self.given = None  # permutations, where the shuffle has to be the reference's

    def loss(self, params, obs, actions, old_logp, advantages, returns, old_values):
        head = self.network(params[:self.depth], obs, self.activation)
        values = self.network(params[self.depth:2 * self.depth], obs, self.activation)[:, 0]
        logp, entropy = categorical(head, actions) if self.c["kind"] == "cat" else gaussian(head, params[-1], actions)
        return objective(logp, entropy, values, old_logp, advantages, returns, old_values, self.c["ent"])

    def flat_rollout(self, gae):
        r = self.rollout
        advantages, returns = gae(r["rewards"], r["values"], r["dones"], r["next_value"], r["next_done"])
        return [r["obs"], r["actions"], r["logp"], advantages.reshape(-1), returns.reshape(-1), r["values"].reshape(-1)]

    def minibatches(self):
        for epoch in range(self.c["epochs"]):
            order = torch.randperm(self.rows, device=DEVICE) if self.given is None else self.given[epoch]
            yield from order.split(self.size)

    def peer(self):
        def found():
            self.given = tensor(self.case.permutations)
            self.reset()
            losses = torch.stack(self.update())
            self.given = None
            return host(losses), np.concatenate([host(p).ravel() for p in self.params])
        return Peer(self.update, sync, found, self.reset)


class Eager(Learner):
    """CleanRL's loop: autograd, clip_grad_norm_, Adam."""

    def __init__(self, case, dtype=torch.float32):
        super().__init__(case, dtype)
        self.params = [p.clone().requires_grad_() for p in self.start]
        self.reset()

    def reset(self):
        with torch.no_grad():
            for p, start in zip(self.params, self.start):
                p.copy_(start)
        self.adam = torch.optim.Adam(self.params, lr=self.c["lr"], eps=ADAM_EPS)

    def update(self):
        with torch.no_grad():
            flat = self.flat_rollout(gae_loop)
        losses = []
        for indices in self.minibatches():
            loss = self.loss(self.params, *[x[indices] for x in flat])
            self.adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.params, MAX_GRAD_NORM)
            self.adam.step()
            losses.append(loss.detach())
        return losses


class Compiled(Learner):
    """A whole minibatch step, gather to Adam, as one compiled function that updates in place."""

    def __init__(self, case):
        super().__init__(case)
        self.params, self.m, self.v = ([p.clone() for p in self.start] for _ in range(3))
        self.t = torch.zeros((), device=DEVICE)
        self.step = compiled(self.plain_step)
        self.reset()

    def reset(self):
        for p, start, m, v in zip(self.params, self.start, self.m, self.v):
            p.copy_(start)
            m.zero_()
            v.zero_()
        self.t.zero_()

    def plain_step(self, params, m, v, t, indices, *flat):
        gradients, loss = torch.func.grad_and_value(self.loss)(params, *[x[indices] for x in flat])
        norm = torch.sqrt(sum((g * g).sum() for g in gradients))
        factor = torch.clamp(MAX_GRAD_NORM / (norm + 1e-6), max=1.0)
        t.add_(1.0)
        for p, mi, vi, g in zip(params, m, v, gradients):
            g = g * factor
            mi.copy_(0.9 * mi + 0.1 * g)
            vi.copy_(0.999 * vi + 0.001 * g * g)
            corrected = torch.sqrt(vi / (1 - torch.pow(0.999, t))) + ADAM_EPS
            p.sub_(self.c["lr"] * mi / (1 - torch.pow(0.9, t)) / corrected)
        return loss

    def advantages(self):
        return self.flat_rollout(gae_doubling)

    def minibatch(self, indices, flat):
        return self.step(self.params, self.m, self.v, self.t, indices, *flat)

    @torch.no_grad()
    def captured(self):
        """Advantages and step become CUDA graphs. Shuffling stays outside, as its random numbers differ from call to call."""
        advantages, plain, indices = graphed(self.advantages), self.minibatch, torch.arange(self.size, device=DEVICE)
        flat = advantages()
        step = graphed(lambda: plain(indices, flat))
        self.reset()  # the warm-up took steps

        def minibatch(chosen, _):
            indices.copy_(chosen)
            return step().clone()
        self.advantages, self.minibatch = advantages, minibatch
        return self

    @torch.no_grad()
    def update(self):
        flat = self.advantages()
        return [self.minibatch(indices, flat) for indices in self.minibatches()]


def update_peers(case):
    case.reference = Eager(case, torch.float64).peer().found()
    return {"eager_cleanrl": lambda: Eager(case).peer(), "compile_full_step": lambda: Compiled(case).peer(),
            **on_cuda(compile_cudagraph=lambda: Compiled(case).captured().peer())}


def fresh(peers):
    """Drops what the case before has compiled and kept. Not before each peer: those of one case are timed in turn."""
    def of(case):
        torch._dynamo.reset()
        torch.cuda.empty_cache()
        return peers(case)
    return of


PEERS = {"gae": fresh(gae_peers), "loss": fresh(loss_peers), "mlp": fresh(mlp_peers), "update": fresh(update_peers)}
