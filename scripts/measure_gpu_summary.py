#!/usr/bin/env python3
"""Summary of a folder that scripts/measure-gpu made: which parts passed, and which aims for NVIDIA GPUs (docs/performance.md) are met.

    python3 scripts/measure_gpu_summary.py OUT

Prints OUT/summary.md after writing it. Exits 1 where a part failed.
"""

import csv
import json
import sys
from pathlib import Path

MIB = 1 << 20


def records(path):
    """All records of a file; none where there is no file yet."""
    return json.loads(path.read_text())["records"] if path.exists() else []


def compared(out):
    """All records of ours beside peers'."""
    return [r for path in sorted((out / "peers").glob("*.json")) for r in records(path)]


def bench(found, name):
    """The record of one bench, or why there is none."""
    record = next((r for r in found if r["bench"] == name), {"missing": "not measured"})
    why = next((f"{key}: {record[key]}" for key in ("failed", "skipped", "missing") if key in record), None)
    return record, why and why.removeprefix("missing: ")


def bandwidth_share(found, name):
    """Bytes a second as a share of the copy of that size, as `bench` chooses it, and why there is none."""
    record, why = bench(found, name)
    copies = [bench(found, f"limits/copy_{size}MiB") for size in (16, 128)]
    why = why or next((why for _, why in copies if why), None)
    if why:
        return None, why
    copy = next((copy for copy, _ in copies if record["bytes"] <= copy["bytes"]), copies[-1][0])
    return (record["bytes"] / record["median_s"]) / (copy["bytes"] / copy["min_s"]), None


def peak_share(found, name):
    """Operations a second as a share of the measured peak of multiply-adds, and why there is none."""
    record, why = bench(found, name)
    peak, no_peak = bench(found, "limits/arithmetic")
    if why or no_peak:
        return None, why or no_peak
    return (record["flops"] / record["median_s"]) / (peak["flops"] / peak["min_s"]), None


def speedup(found, name, own, others):
    """The best peer's time over ours, with that peer's name, and why there is none."""
    rows = [r for r in found if r["bench"] == name]
    ours = [r for r in rows if r["framework"] == "ppo-kernels" and r["precision"] == own]
    peers = [r for r in rows if r["framework"] != "ppo-kernels" and r["precision"] in others]
    for who, candidates in (("ppo-kernels", ours), ("peers", peers)):
        if not any("median_s" in r for r in candidates):
            return None, next((f"{who}: {r['error']}" for r in candidates if "error" in r), f"{who}: not measured")
    best = min((r for r in peers if "median_s" in r), key=lambda r: r["median_s"])
    ours = min(r["median_s"] for r in ours if "median_s" in r)
    return best["median_s"] / ours, f"{best['framework']} {best['variant']}"


def aims(out):
    """[(work, beside, aim, reached or None, note, whether the aim is a share)]"""
    timed = records(out / "bench-f32.json")
    beside = compared(out)
    rows = []
    for name, aim in (("i_cartpole", 3.0), ("ii_mujoco", 3.0), ("iii_isaac", 1.2), ("iv_discrete", 1.2)):
        rows.append((f"update/{name}, f32", "best f32 peer", aim, *speedup(beside, f"update/{name}", "f32", ["f32"]), False))
    for name in ("iii_isaac", "iv_discrete"):
        found = speedup(beside, f"update/{name}", "f16", ["tf32", "bf16"])
        rows.append((f"update/{name}, f16", "best tf32 or bf16 peer", 1.0, *found, False))
    for name in ("T16_N65536", "T1024_N1024"):  # those of 2^20 elements
        rows.append((f"gae/{name}", "copy bandwidth", 0.8, *bandwidth_share(timed, f"gae/{name}"), True))
    for name in ("cat/A2", "cat/A6", "cat/A18", "gauss/A6", "gauss/A21"):
        name = f"loss_{name}_B{MIB}"
        rows.append((name, "copy bandwidth", 0.7, *bandwidth_share(timed, name), True))
    for way in ("fwd", "fwdbwd"):
        name = f"mlp_{way}/B65536_128-1024-1024-32"
        rows.append((f"{name}, f32", "multiply-add peak", 0.6, *peak_share(timed, name), True))
    return rows


def shown(number, is_share):
    return f"{100 * number:.0f} %" if is_share else f"{number:.2f} x"


def cell(text):
    return " ".join(text.replace("|", "/").split())[:160]


def aims_table(rows):
    lines = ["| work | beside | aim | reached | |", "| --- | --- | --: | --: | --- |"]
    for work, beside, aim, reached, note, is_share in rows:
        value = "–" if reached is None else shown(reached, is_share)
        verdict = "" if reached is None else "met" if reached >= aim else "MISSED"
        notes = "; ".join(text for text in (verdict, cell(note or "")) if text)
        lines.append(f"| {work} | {beside} | {shown(aim, is_share)} | {value} | {notes} |")
    return lines


def parts_table(parts):
    lines = ["| part | | seconds | limit | |", "| --- | --- | --: | --: | --- |"]
    return lines + [f"| {name} | {status} | {took} | {limit} | {cell(note)} |" for name, status, took, limit, note in parts]


def machine(out):
    for path in sorted(out.glob("bench-*.json")):
        meta = json.loads(path.read_text())["meta"]
        adapter = meta["adapter"]
        peaks = meta.get("peaks")
        figures = f"; peaks {peaks['gflops']:.0f} GFLOP/s, {peaks['gbps']:.0f} GB/s" if peaks else ""
        return [f"{adapter['name']}, {adapter['driver']} {adapter['driver_info']}; commit {meta['commit']}{figures}", ""]
    return ["No bench has named the adapter.", ""]


def counted(word, names):
    return f"{len(names)} {word}" + (f" ({', '.join(names)})" if names else "")


def summary(out):
    """The summary's text, and whether no part failed."""
    with (out / "parts.tsv").open(newline="") as file:
        parts = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    rows = aims(out)
    ended = {status: [part[0] for part in parts if part[1] == status] for status in ("passed", "failed", "out of time", "missing", "not run")}
    met = [row for row in rows if row[3] is not None and row[3] >= row[2]]
    missed = [row for row in rows if row[3] is not None and row[3] < row[2]]
    lines = ["# GPU measurement", "", *machine(out),
             "Parts: " + "; ".join(counted(status, names) for status, names in ended.items() if names or status in ("passed", "failed")) + ".",
             f"Aims: {len(met)} met, {len(missed)} missed, {len(rows) - len(met) - len(missed)} not measured.", "",
             *parts_table(parts), "", *aims_table(rows)]
    absent = [peer for peer in ("torch", "jax") if not any(r["framework"] == peer and "median_s" in r for r in compared(out))]
    if absent:
        lines += ["", f"Without figures of {' and '.join(absent)}: peers need numpy, torch, jax and optax in the Python that --python names."]
    return "\n".join(lines) + "\n", not ended["failed"]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    out = Path(sys.argv[1])
    text, good = summary(out)
    (out / "summary.md").write_text(text)
    print(text, end="")
    sys.exit(not good)


if __name__ == "__main__":
    main()
