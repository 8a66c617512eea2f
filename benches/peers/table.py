#!/usr/bin/env python3
"""Tables of committed figures: ours, the best peer, and the ratio of the two.

    python benches/peers/table.py benches/results/DEVICE/DATE.json …
    python benches/peers/table.py --into docs/measurements/peers.md benches/results/…
    python benches/peers/table.py --into README.md --only update/,gae/T128_N4096 benches/results/…

The first prints the tables. The others put them between the two markers of a file. The figures of README.md and
docs/measurements/peers.md are made by the commands that stand above their markers.
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


def machine(meta, folder):
    """Lines on the machine, the commit, the versions, the rounds."""
    program = meta.get("program", {})
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items() if version)
    adapter = program.get("adapter", {}).get("name", "?")
    where = program.get("cpu", "?") + f", {program.get('cores', '?')} threads" if adapter == "CPU" else adapter
    commit = (program.get("commit") or "no commit")[:12] + ("-dirty" if "dirty" in (program.get("commit") or "") else "")
    busy = max(meta.get(f"foreign_cores_{when}") or 0 for when in ("before", "after"))
    shared = f";\nother programs kept {busy:.1f} cores busy" if busy > 0.1 else ""
    allocator = "; peers keep freed memory" if meta.get("allocator") == "keeps memory" else ""
    return (
        f"`{folder}`: {where}; {meta['date'][:10]};\ncommit {commit}; {versions};\n"
        f"median of {meta['rounds']} alternating rounds{allocator}{shared}."
    )


def markdown(path, wanted):
    """The table of a file of results: the rows whose name contains one of `wanted`."""
    report = json.loads(path.read_text())
    lines = [machine(report["meta"], path.resolve().parent.name), "", "| | ppo-kernels | best peer | | peer / ours |", "| --- | --: | --: | --- | --: |"]
    for name, own, peer in rows(report["records"]):
        if not any(part in name for part in wanted):
            continue
        ratio = f"{peer['median_s'] / own['median_s']:.2f}" if own and peer else "–"
        which = f"{peer['framework']} {peer['variant']}" if peer else "–"
        times = [duration(r["median_s"]) if r else "–" for r in (own, peer)]
        lines.append(f"| {name} | {times[0]} | {times[1]} | {which} | {ratio} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--into", type=Path, metavar="FILE", help="replace the text between this file's markers")
    parser.add_argument("--only", default="", metavar="PATTERN", help="only rows whose name contains one of these, separated by commas")
    args = parser.parse_args()
    wanted = args.only.split(",")
    text = "\n\n".join(markdown(path, wanted) for path in args.results)
    if not args.into:
        print(text)
        return
    before, found, rest = args.into.read_text().partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        parser.error(f"{args.into} lacks the marker {END if found else BEGIN!r}; add both {BEGIN!r} and {END!r}")
    args.into.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


if __name__ == "__main__":
    main()
