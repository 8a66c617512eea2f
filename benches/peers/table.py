#!/usr/bin/env python3
"""Tables of committed figures: ours, the best peer, and the ratio of the two.

    python benches/peers/table.py benches/results/DEVICE/DATE.json …            prints them
    python benches/peers/table.py --readme README.md benches/results/…          puts them between the README's two markers
"""

import argparse
import json
from pathlib import Path

BEGIN, END = "<!-- figures: made by benches/peers/table.py -->", "<!-- end of figures -->"


def duration(seconds):
    for unit, scale in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1 or unit == "µs":
            return f"{seconds * scale:.3g} {unit}" if seconds * scale < 1000 else f"{seconds * scale:.0f} {unit}"


def rows(records):
    """(case, our record, fastest peer's record), either of them None where there is none. f32 is beside f32; where something was timed in
    another precision, rows of their own have our f16x3, which is about as exact, beside f32, and our f16 beside the faster of tf32 and bf16."""
    def timed(name, is_ours, precisions):
        return [
            r for r in records
            if r["bench"] == name and "median_s" in r
            and (r["framework"] == "ppo-kernels") == is_ours and r.get("precision", "f32") in precisions
        ]

    for name in dict.fromkeys(r["bench"] for r in records):
        for label, own_precision, peers_precisions in (
            (name, "f32", ["f32"]),
            (f"{name} (f16x3)", "f16x3", ["f32"]),
            (f"{name} (reduced precision)", "f16", ["tf32", "bf16"]),
        ):
            own, peers = timed(name, True, [own_precision]), timed(name, False, peers_precisions)
            if own or label == name or (peers and own_precision == "f16"):
                yield label, next(iter(own), None), min(peers, key=lambda r: r["median_s"], default=None)


def machine(meta):
    """One line on where and of what the figures are."""
    program = meta.get("program", {})
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items() if version)
    adapter = program.get("adapter", {}).get("name", "?")
    where = program.get("cpu", "?") + f", {program.get('cores', '?')} threads" if adapter == "CPU" else adapter
    commit = (program.get("commit") or "no commit")[:12] + ("-dirty" if "dirty" in (program.get("commit") or "") else "")
    busy = max(meta.get(f"foreign_cores_{when}") or 0 for when in ("before", "after"))
    shared = f"; other programs kept {busy:.1f} cores busy" if busy > 0.1 else ""
    allocator = "; peers keep freed memory" if meta.get("allocator") == "keeps memory" else ""
    return f"{where}; {meta['date'][:10]}, {commit}; {versions}; median of {meta['rounds']} alternating rounds{allocator}{shared}."


def markdown(report):
    lines = [machine(report["meta"]), "", "| | ppo-kernels | best peer | | peer / ours |", "| --- | --: | --: | --- | --: |"]
    for name, own, peer in rows(report["records"]):
        ratio = f"{peer['median_s'] / own['median_s']:.2f}" if own and peer else "–"
        which = f"{peer['framework']} {peer['variant']}" if peer else "–"
        times = [duration(r["median_s"]) if r else "–" for r in (own, peer)]
        lines.append(f"| {name} | {times[0]} | {times[1]} | {which} | {ratio} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--readme", type=Path, help="replace what is between its markers")
    args = parser.parse_args()
    text = "\n\n".join(markdown(json.loads(path.read_text())) for path in args.results)
    if not args.readme:
        print(text)
        return
    before, found, rest = args.readme.read_text().partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        parser.error(f"{args.readme} has not both {BEGIN!r} and {END!r}")
    args.readme.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


if __name__ == "__main__":
    main()
