#!/usr/bin/env python3
"""This crate beside PyTorch, JAX and numba: one run on one machine, alternating, so that all see it in the same state.

    cargo build --release
    python benches/peers/run.py --backend cpu
    python benches/peers/run.py --backend gpu --device cuda --out benches/results/h200
    python benches/peers/run.py --only update/,gae/ --rounds 5

Each case runs in rounds: `ppo-kernels bench --only CASE`, then every peer. A figure is the median over the rounds of each round's
median. Peers are checked against float64 before they are timed, as the crate checks itself. Needs numpy and torch; jax with optax, and
numba, where they are. With --out DIR the figures go to DIR/DATE.json; table.py makes the README's table of such files.
"""

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--binary", type=Path, default=Path("target/release/ppo-kernels"), help="the program")
    parser.add_argument("--backend", choices=["auto", "gpu", "cpu"], default="cpu", help="where the program computes")
    parser.add_argument("--adapter", help="the program's adapter")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where the peers compute")
    parser.add_argument("--only", default="", help="parts of names, separated by commas")
    parser.add_argument("--frameworks", default="torch,jax,numba", help="which peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of samples of one peer in one round")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the peers; the program takes all")
    parser.add_argument("--quick", action="store_true", help="little time for the program, which then knows small shapes only")
    parser.add_argument("--out", type=Path, help="folder for the figures")
    return parser.parse_args()


ARGS = arguments()
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
        except ImportError as error:
            note(f"without {name}: {error}")
    return found


def ours(name):
    """The program's record of one case, and its description of the machine."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.json")
        command = [ARGS.binary, "bench", "--backend", ARGS.backend, "--only", name, "--json", out]
        command += ["--adapter", ARGS.adapter] if ARGS.adapter else []
        command += ["--quick"] if ARGS.quick else []
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        report = json.loads(out.read_text())
    record = next(r for r in report["records"] if r["bench"] == name)
    if "skipped" in record:
        raise RuntimeError(record["skipped"])
    return record, report["meta"]


def checked_peers(case, modules):
    """{(framework, variant): Peer}, of those that compute what they should, and why the others do not run."""
    peers, records = {}, []
    for framework, module in modules.items():
        # References are torch's, so its builders run even where nobody wants to time them.
        variants = module.PEERS.get(case.section, lambda _: {})(case)
        if framework not in ARGS.frameworks.split(","):
            continue
        for variant, build in variants.items():
            record = {"bench": case.name, "variant": variant, "framework": framework, "device": ARGS.device}
            try:
                peer = build()
                record["check"], passes = case.check(peer.found())
                if not passes:
                    raise ArithmeticError(f"not what float64 says: {record['check']}")
                peers[framework, variant] = peer, record
            except Exception as error:  # a peer that fails is a finding, and no reason to lose the others
                note(f"{case.name}: {framework} {variant}: {type(error).__name__}: {error}")
                records.append(record | {"error": f"{type(error).__name__}: {error}"[:300]})
    return peers, records


def summary(samples):
    return {"median_s": statistics.median(samples), "min_s": min(samples), "rounds_s": samples}


def compare(case, modules, meta):
    """All records of one case."""
    peers, records = checked_peers(case, modules)
    own, rounds = None, {key: [] for key in peers}
    mine = []
    for turn in range(ARGS.rounds):
        try:
            own, meta["program"] = ours(case.name)
            mine.append(own["median_s"])
        except RuntimeError as error:
            note(f"{case.name}: {error}")
        # Who comes first in one round comes last in the next.
        for key in list(peers)[::-1 if turn % 2 else 1]:
            rounds[key].append(peers[key][0].median(ARGS.seconds))
    for key, (_, record) in peers.items():
        records.append(record | summary(rounds[key]))
    if mine:
        kept = ("bench", "variant", "framework", "device", "flops", "bytes", "check")
        records.insert(0, {key: own[key] for key in kept} | summary(mine))
    return records


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
