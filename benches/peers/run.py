#!/usr/bin/env python3
"""This crate beside PyTorch, JAX and numba: one run on one machine, alternating, so that all see it in the same state.

    cargo build --release
    python benches/peers/run.py --backend cpu
    python benches/peers/run.py --backend gpu --device cuda --out benches/results/h200
    python benches/peers/run.py --only update/,gae/ --rounds 5
    python benches/peers/run.py --only update/iii,update/iv --frameworks torch --keep-memory

Each case runs in rounds: `ppo-kernels bench --only CASE`, then every peer. A figure is the median over the rounds of each round's
median. Peers are checked against float64 before they are timed, as the crate checks itself. Needs numpy and torch; jax with optax, and
numba, where they are. With --out DIR the figures go to DIR/DATE.json; table.py makes the documents' tables of such files.

--backend, --adapter and --binary say which program computes where, --device where the peers do; on cuda, PyTorch's compiled code is also
captured as CUDA graphs. --only and --frameworks choose cases and peers, --rounds, --seconds and --threads how they are timed.

--precisions are those of the peers' matrix products in `mlp_*` and `update/*`: f32 alone on the CPU, on cuda also tf32 and bf16, whose
variants end in `_tf32` and `_bf16`. bf16 is autocast in PyTorch and casts in JAX, of parameters that stay in f32, as gradients and Adam
do; a CPU computes f32 for tf32. The bound of the check depends on it. --own-precisions are the program's, likewise: f32, and with
--backend gpu and --device cuda also f16x3-tensor-core, beside the peers' f32, and f16-tensor-core, beside the rest. What then runs on no
tensor core is recorded as an error, not as a figure.

--keep-memory starts this process again with glibc told to keep what is freed: without it, large blocks go back to the system after
each call, and PyTorch on the CPU pays for their pages again and again. One process has one setting, which the figures name; the program
never gets it.
"""

import argparse
import functools
import gc
import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


# What the program is asked for, and what its records say of it.
OWN_PRECISIONS = {"f32": "f32", "f16x3-tensor-core": "f16x3", "f16-tensor-core": "f16"}
KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1", "MALLOC_TOP_PAD_": str(1 << 28)}


def some_of(*allowed):
    """For argparse: some of `allowed`, separated by commas."""
    def parse(text):
        if set(text.split(",")) - set(allowed):
            raise argparse.ArgumentTypeError(f"{text!r} is not some of {','.join(allowed)}")
        return text.split(",")
    return parse


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--binary", type=Path, default=Path("target/release/ppo-kernels"), help="the program")
    parser.add_argument("--backend", choices=["auto", "gpu", "cpu"], default="cpu", help="where the program computes")
    parser.add_argument("--adapter", help="the program's adapter")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where the peers compute")
    parser.add_argument("--only", default="", help="parts of names, separated by commas")
    parser.add_argument("--frameworks", default="torch,jax,numba", help="which peers")
    parser.add_argument("--precisions", type=some_of("f32", "tf32", "bf16"),
                        help="of the peers; if not given, f32 on the CPU and all on cuda")
    parser.add_argument("--own-precisions", type=some_of(*OWN_PRECISIONS),
                        help="of the program; if not given, f32, and all with --backend gpu and --device cuda")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of samples of one peer in one round")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the peers; the program takes all")
    parser.add_argument("--quick", action="store_true", help="little time for the program, which then knows small shapes only")
    parser.add_argument("--keep-memory", action="store_true", help="glibc gives nothing back to the system meanwhile")
    parser.add_argument("--out", type=Path, help="folder for the figures")
    args = parser.parse_args()
    cuda = args.device == "cuda"
    args.precisions = args.precisions or (["f32", "tf32", "bf16"] if cuda else ["f32"])
    args.own_precisions = args.own_precisions or (list(OWN_PRECISIONS) if cuda and args.backend == "gpu" else ["f32"])
    return args


def keeps_memory():
    return all(os.environ.get(name) == value for name, value in KEEPING.items())


ARGS = arguments()
if ARGS.keep_memory and not keeps_memory():  # glibc reads them when a process starts
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | KEEPING)
# Before the frameworks are imported: threads, and a place to compile that takes no core from what is measured.
os.environ["PEERS_DEVICE"] = ARGS.device
os.environ.setdefault("OMP_NUM_THREADS", str(ARGS.threads))
os.environ.setdefault("NUMBA_NUM_THREADS", str(ARGS.threads))
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
if ARGS.device == "cpu":
    os.environ["JAX_PLATFORMS"] = "cpu"

import cases  # noqa: E402
import table  # noqa: E402
import timing  # noqa: E402


def note(text):
    print(text, file=sys.stderr, flush=True)


def frameworks():
    """Modules with peers, by name. torch is needed for the references in any case, and comes first."""
    import torch_peers
    torch_peers.use(ARGS.device, ARGS.threads)
    found = {"torch": torch_peers}
    for name in ("jax", "numba"):
        if name not in ARGS.frameworks.split(",") or (name == "numba" and ARGS.device == "cuda"):
            continue
        try:
            found[name] = __import__(f"{name}_peers")
        except (ImportError, RuntimeError) as error:
            note(f"without {name}: {error}")
    return found


def suiting(precisions, section):
    """What has no matrix products is in f32."""
    return [precision for precision in precisions if precision == "f32" or section in cases.REDUCIBLE]


def ours(name, precision):
    """The program's record of one case, and its description of the machine."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.json")
        command = [ARGS.binary, "bench", "--backend", ARGS.backend, "--only", name, "--json", out]
        command += ["--adapter", ARGS.adapter] if ARGS.adapter else []
        command += ["--precision", precision] if precision != "f32" else []
        command += ["--quick"] if ARGS.quick else []
        environment = {key: value for key, value in os.environ.items() if key not in KEEPING}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
        report = json.loads(out.read_text())
    record = next(r for r in report["records"] if r["bench"] == name)
    if "skipped" in record:
        raise RuntimeError(record["skipped"])
    if precision != "f32" and record["variant"] == "default":
        warned = [line for line in done.stderr.splitlines() if "stay in f32" in line]
        raise RuntimeError(warned[0] if warned else "none of its products is large enough for tensor cores, so all were in f32")
    return record, report["meta"]


class OwnRuns:
    """What the program takes for one case in one precision, round by round, until it fails."""

    def __init__(self, name, precision):
        self.name, self.asked = name, precision
        self.samples, self.found, self.error = [], {"bench": name, "variant": "default", "framework": "ppo-kernels"}, None

    def another(self):
        """One more round. Returns the program's description of the machine."""
        if self.error:
            return None
        try:
            self.found, meta = ours(self.name, self.asked)
            self.samples.append(self.found["median_s"])
            return meta
        except RuntimeError as error:
            note(f"{self.name}: {self.asked}: {error}")
            self.error = str(error)[:300]

    def record(self):
        kept = ("bench", "variant", "framework", "device", "flops", "bytes", "check")
        record = {key: self.found[key] for key in kept if key in self.found}
        record["precision"] = OWN_PRECISIONS[self.asked]
        return record | (summary(self.samples) if self.samples else {"error": self.error})


def failure(record, error):
    """A peer that fails is a finding, and no reason to lose the others."""
    text = f"{type(error).__name__}: {error}"
    note(f"{record['bench']}: {record['framework']} {record['variant']}: {text}")
    return record | {"error": text[:300]}


def checked_peers(case, modules):
    """[(peer, its record, a context to call it in, no samples yet)] of those that compute what they should, and records that say why the
    others do not run."""
    peers, failed = [], []
    for framework, module in modules.items():
        # References are torch's, so its builders run even where nobody wants to time them.
        variants = module.PEERS.get(case.section, lambda _: {})(case)
        if framework not in ARGS.frameworks.split(","):
            continue
        for precision, (variant, build) in itertools.product(suiting(ARGS.precisions, case.section), variants.items()):
            name = variant if precision == "f32" else f"{variant}_{precision}"
            record = {"bench": case.name, "variant": name, "framework": framework, "device": ARGS.device, "precision": precision}
            if keeps_memory():
                record["allocator"] = "keeps memory"
            try:
                with module.at(precision):
                    peer = build()
                    record["check"], passes = case.check(peer.found(), precision)
                if not passes:
                    raise ArithmeticError(f"not what float64 says: {record['check']}")
                peers.append((peer, record, functools.partial(module.at, precision), []))
            except Exception as error:
                failed.append(failure(record, error))
    return peers, failed


def summary(samples):
    return {"median_s": statistics.median(samples), "min_s": min(samples), "rounds_s": samples}


def compare(case, modules, meta):
    """All records of one case."""
    peers, failed = checked_peers(case, modules)
    own = {precision: OwnRuns(case.name, precision) for precision in suiting(ARGS.own_precisions, case.section)}
    for turn in range(ARGS.rounds):
        for runs in own.values():
            meta["program"] = runs.another() or meta.get("program", {})
        # Who comes first in one round comes last in the next.
        for entry in peers[::-1 if turn % 2 else 1]:
            peer, record, at, samples = entry
            try:
                with at():
                    samples.append(peer.median(ARGS.seconds))
            except Exception as error:
                failed.append(failure(record, error))
                peers.remove(entry)
    timed = [record | summary(samples) for _, record, _, samples in peers]
    return [runs.record() for runs in own.values()] + failed + timed


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def main():
    modules = frameworks()
    parts = [part for part in ARGS.only.split(",") if part]
    wanted = [(name, make) for name, make in cases.every() if not parts or any(part in name for part in parts)]
    if not wanted:
        sys.exit("--only fits none of " + ", ".join(name for name, _ in cases.every()))
    meta = {
        "date": time.strftime("%Y-%m-%d %H:%M:%S"), "rounds": ARGS.rounds, "threads": ARGS.threads, "device": ARGS.device,
        "allocator": "keeps memory" if keeps_memory() else "default", "precisions": ARGS.precisions,
        "python": platform.python_version(), "foreign_cores_before": timing.foreign_cores(),
        "versions": {p: version(p) for p in ("torch", "jax", "optax", "numba", "numpy")},
    }
    if ARGS.device == "cuda":
        meta["gpu"] = modules["torch"].torch.cuda.get_device_name(0)
    records = []
    path = ARGS.out and ARGS.out / (time.strftime("%Y-%m-%d-%H%M%S") + ".json")
    for name, make in wanted:
        note(name)
        records += compare(make(), modules, meta)
        gc.collect()
        if path:  # after every case: a run that is cut off leaves what it had
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"meta": meta, "records": records}, indent=1) + "\n")
    meta["foreign_cores_after"] = timing.foreign_cores()
    if path:
        path.write_text(json.dumps({"meta": meta, "records": records}, indent=1) + "\n")
    print(table.markdown({"meta": meta, "records": records}))


if __name__ == "__main__":
    main()
