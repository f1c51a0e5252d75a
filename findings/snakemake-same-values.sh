#!/usr/bin/env bash
# Snakemake 9.27.1: a changed parameter isn't seen if its old and its new value both stand in other parameters, or if it is an integer that
# came out of a pandas table. Then the old result stays, and Snakemake says "Nothing to be done".
#
# With an output Snakemake records the values of `params` without their names, and compares them as a set. Settings of a recommender have small
# round values that recur. Here core is 5, neighbours are 20 and top is 10. `history`, the length of the histories, goes through 5, 10, 20 and
# 50 in the config file. With 10 and with 20 the set is the same as with 5, so that nothing is run and the old figure stays. The sweep says
# that Recall@10 on ml-100k is .127 for 5, 10 and 20. It is .127, .105 and .085. Only 50 is seen. Two parameters that swap their values aren't
# seen either: neighbours of 50 with a history of 20 keep the .069 of the reverse, where it is .086.
#
# A value whose type isn't one of a list of Python's own is left out of the record. One such type is numpy's int64, which pandas gives for a cell
# of a sheet of settings: sheet.loc[model, "neighbours"]. Going from 5 to 200 neighbours in the sheet runs nothing. The figure stays at .111,
# where it is .101. With a decimal point the column is seen, as numpy's float64 is a float.
#
# The text of the option --rerun-triggers says that the default, all triggers, guarantees results that agree with code and configuration. One
# would guess that a parameter is a name and a value. Give all settings as one dict or one JSON string, and put int() around what comes from a
# table. In the tracker there are parameters that run a job anew without a change (pull request 2080, issue 2212). Changes that aren't seen
# weren't found there.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. On ml-100k, which the package recbole brings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check snakemake==9.27.1 pandas==2.3.3 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$folder/data" recbole==1.2.1  # for its ml-100k
cd "$folder"
cat > score.py <<'P'
"""Recall of neighbours by cosine, leave-last-out: the minimal count of an item, the newest items that are read, neighbours, places."""
import sys
import numpy as np
core, history, neighbours, top = (int(float(value)) for value in sys.argv[1:])
lines = [line.split("\t") for line in open("data/recbole/dataset_example/ml-100k/ml-100k.inter").read().splitlines()[1:]]
counts = np.bincount([int(line[1]) for line in lines])
taken = {}
for user, item, _, time in sorted(lines, key=lambda line: (float(line[3]), int(line[1]))):
    if counts[int(item)] >= core:
        taken.setdefault(user, []).append(int(item))
had = np.zeros((len(taken), len(counts)))
for row, items in enumerate(taken.values()):
    had[row, items[:-1]] = 1
cosine = had.T @ had / np.sqrt(np.outer(had.sum(0), had.sum(0)) + 1e-12)
np.fill_diagonal(cosine, 0)
cosine[cosine < -np.sort(-cosine, axis=1)[:, neighbours - 1 : neighbours]] = 0
hits = 0
for row, items in enumerate(taken.values()):
    scores = np.where(had[row], -1, cosine[items[:-1][-history:]].sum(0))
    hits += items[-1] in np.argsort(-scores, kind="stable")[:top]
print(f"{hits / len(taken):.4f}")
P
cat > Snakefile <<'S'
import pandas
configfile: "config.json"
sheet = pandas.read_csv("sheet.csv", index_col="model")

rule of_config:
    output: "config.txt"
    params:
        core=config["core"],
        history=config["history"],
        neighbours=config["neighbours"],
        top=config["top"],
    shell: "python score.py {params.core} {params.history} {params.neighbours} {params.top} > {output}"

rule of_sheet:
    output: "{model}.of_sheet.txt"
    params:
        neighbours=lambda wildcards: sheet.loc[wildcards.model, "neighbours"],
    shell: "python score.py 5 10 {params.neighbours} 10 > {output}"
S
cat > check.py <<'P'
import json, os, re, subprocess, sys
from importlib.metadata import version
environment = dict(os.environ, PATH=os.path.dirname(sys.executable) + ":" + os.environ["PATH"], OMP_NUM_THREADS="1")


def run(target, *options):
    """What a call of Snakemake says, and the figure that is then there."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *options, target]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    said = re.search(r"Nothing to be done|Params have changed|steps \(100%\) done", done.stderr).group()
    return said, float(open(target).read())


def configured(*settings):
    """The figure of an everyday call with new settings, and what it should be."""
    names = ("core", "history", "neighbours", "top")
    json.dump(dict(zip(names, settings)), open("config.json", "w"))
    said, figure = run("config.txt")
    own = float(subprocess.run([sys.executable, "score.py", *map(str, settings)], env=environment, check=True, capture_output=True).stdout)
    print(*(f"{name} {value}," for name, value in zip(names, settings)), f"'{said}': {figure}, should be {own}")
    return said == "Nothing to be done", figure, own


def tabled(neighbours):
    """The same for settings in a table."""
    open("sheet.csv", "w").write(f"model,neighbours,similarity\nknn,{neighbours},cosine\n")
    said, figure = run("knn.of_sheet.txt")
    own = float(subprocess.run(
        [sys.executable, "score.py", "5", "10", neighbours, "10"], env=environment, check=True, capture_output=True).stdout)
    print(f"sheet: neighbours {neighbours}, '{said}': {figure}, should be {own}")
    return said == "Nothing to be done", figure, own


open("sheet.csv", "w").write("model,neighbours,similarity\nknn,5,cosine\n")
sweep = [configured(5, history, 20, 10) for history in (5, 10, 20, 50)]
swapped = configured(5, 20, 50, 10)
whole, decimal = [tabled(n) for n in ("5", "200")], [tabled(n) for n in ("5.0", "200.0")]
print(*(f"{name} {version(name)}" for name in ("snakemake", "pandas", "numpy")))
unseen = [idle for idle, *_ in sweep] == [False, True, True, False] and swapped[0] and [idle for idle, *_ in whole] == [False, True]
stale = sweep[0][1] == sweep[1][1] == sweep[2][1] and len({own for *_, own in sweep}) == 4
others = all(figure != own for _, figure, own in (sweep[1], sweep[2], swapped, whole[1]))
control = all(figure == own and not idle for idle, figure, own in (sweep[0], sweep[3], whole[0], *decimal))
sys.exit(not (unseen and stale and others and control))
P
"$folder/venv/bin/python" check.py
