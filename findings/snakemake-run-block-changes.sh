#!/usr/bin/env bash
# Snakemake 9.27.1: of a changed `run:` block only some lines are compared, so that a new metric, option or grid leaves the old figure, and
# nothing is said.
#
# With an output Snakemake records the code of its rule. Of a `run:` block it records the lines on which an instruction of the compiled block
# begins. The body of a function that is defined in the block is compiled by itself and isn't among them. Of a text in triple quotes only the
# first line is, so that of shell("""...""") the command itself isn't recorded. Of a list of numbers with one number on a line, as formatters
# write it, no number is.
#
# Measured on ml-100k, where what was popular in the newest days ranks each user's last item. A gain function in a block goes from that of
# NDCG to that of MRR: the figure stays at .0278, where it is .0189. An option on the second line of shell("""...""") goes from 7 days to 90:
# .0604 stays, where it is .0562. A grid goes from 7, 30 and 90 days to 7, 3 and 14: its best stays at .0604, where it is .0721. The calls exit
# with 0. The same changes on lines that Snakemake records, or in a `shell:` rule, are seen, and the figures are right.
#
# The text of the option --rerun-triggers says that the default, all triggers, guarantees results that agree with the code, and the maintainer
# wrote in issue 1694 that a changed run block is a changed code. From 8.23.0 on no run block was compared (issue 3213), until pull request
# 3485 brought the comparison back in this way. An issue about the lines that it leaves out wasn't found. Give what may change as `params`, or
# use a `script:`, which is judged by its date.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. On ml-100k, which the package recbole brings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile snakemake==9.27.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps --target "$folder/data" recbole==1.2.1  # for its ml-100k
cd "$folder"
cat > recent.py <<'P'
"""Popularity in the newest days: the rank, from 0, of each user's last item among all items that the user didn't take before."""
import sys
from collections import Counter
lines = [line.split("\t") for line in open("data/recbole/dataset_example/ml-100k/ml-100k.inter").read().splitlines()[1:]]
taken = {}
for user, item, _, time in sorted(lines, key=lambda line: (float(line[3]), int(line[1]))):
    taken.setdefault(user, []).append((item, float(time)))
def ranks(days):
    found = []
    end = max(time for items in taken.values() for _, time in items)
    popular = Counter(item for items in taken.values() for item, time in items[:-1] if time >= end - 86400 * days)
    for *before, (target, _) in taken.values():
        had = {item for item, _ in before}
        found.append(sum(count > popular[target] for item, count in popular.items() if item not in had))
    return found
def recall(days):
    found = ranks(days)
    return sum(rank < 10 for rank in found) / len(found)
if __name__ == "__main__":
    print(f"{recall(int(sys.argv[2])):.4f}", file=open(sys.argv[4], "w"))
P
cat > Snakefile <<'S'
rule metric:
    output: "metric.txt"
    run:
        import math, recent
        def gain(rank):
            return 1 / math.log2(rank + 2)
        found = recent.ranks(30)
        mean = sum(gain(rank) for rank in found if rank < 10) / len(found)
        print(f"{mean:.4f}", file=open(output[0], "w"))
rule command:
    output: "command.txt"
    run:
        shell("""
            python recent.py --days 7 --output {output}
        """)
rule grid:
    output: "grid.txt"
    run:
        import recent
        days = [
            7,
            30,
            90,
        ]
        print(f"{max(map(recent.recall, days)):.4f}", file=open(output[0], "w"))
rule seen_metric:
    output: "seen_metric.txt"
    run:
        import math, recent
        found, mean = recent.ranks(30), 0
        for rank in found:
            if rank < 10:
                mean += 1 / math.log2(rank + 2) / len(found)
        print(f"{mean:.4f}", file=open(output[0], "w"))
rule seen_command:
    output: "seen_command.txt"
    shell:
        """
            python recent.py --days 7 --output {output}
        """
rule seen_grid:
    output: "seen_grid.txt"
    run:
        import recent
        days = [7, 30, 90]
        print(f"{max(map(recent.recall, days)):.4f}", file=open(output[0], "w"))
S
cat > check.py <<'P'
import os, re, subprocess, sys
from importlib.metadata import version
import recent
environment = dict(os.environ, PATH=os.path.dirname(sys.executable) + ":" + os.environ["PATH"], PYTHONPATH=os.getcwd())
def run(names):
    """What a call of Snakemake says, once each, and the figures that are then there."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *(f"{name}.txt" for name in names)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    said = {*re.findall(r"Nothing to be done|(?<=reason: ).*", done.stderr)}
    return said, {name: float(open(f"{name}.txt").read()) for name in names}
names = ["metric", "command", "grid"]
seen = [f"seen_{name}" for name in names]
before = run(names + seen)[1]
text = open("Snakefile").read()
changes = {
    "1 / math.log2(rank + 2)": "1 / (rank + 1)",
    "--days 7 ": "--days 90 ",
    "            30,\n            90,": "            3,\n            14,",
    "[7, 30, 90]": "[7, 3, 14]",
}
assert all(old in text for old in changes)
for old, new in changes.items():
    text = text.replace(old, new)
open("Snakefile", "w").write(text)
said, after = run(names)
said_of_seen, after_of_seen = run(seen)
found = recent.ranks(30)
right = [sum(1 / (rank + 1) for rank in found if rank < 10) / len(found), recent.recall(90), max(map(recent.recall, (7, 3, 14)))]
right = {name: round(value, 4) for name, value in zip(names, right)}
for name in names:
    print(f"{name}: {before[name]}; after the change {said}: {after[name]}, should be {right[name]}; "
          f"on a recorded line {said_of_seen}: {after_of_seen['seen_' + name]}")
print(*(f"{name} {version(name)}" for name in ("snakemake",)))
stale = said == {"Nothing to be done"} and after == {name: before[name] for name in names}
control = said_of_seen == {"Code has changed since last execution"} and all(after_of_seen[f"seen_{name}"] == right[name] for name in names)
moved = all(right[name] != before[name] == before[f"seen_{name}"] for name in names)
sys.exit(not (stale and control and moved))
P
"$folder/venv/bin/python" check.py
