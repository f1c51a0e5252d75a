#!/usr/bin/env bash
# Snakemake 9.27.1: where a table has an empty cell among True and False, Paramspace gives False as a text, which counts as true, so that the
# option is on in all runs.
#
# Paramspace turns each row of a table into a path, and `instance` turns the path back into values for `params`. Values get the type of their
# column. Of a column of True and False pandas makes booleans, and Paramspace knows that the text "False" is no truth there. But where an option
# means nothing for a model, its cell is empty. Then pandas has a column of objects, whose cells still are True and False, and Paramspace
# gives the texts "True" and "False". An empty cell is foreseen: its path says NA, and its value is pandas' NA. Nothing warns, and the call
# exits 0.
#
# Measured on ml-100k with neighbours that divide by an item's popularity or don't, and with popularity, which has no such option. In a table
# of the neighbours alone Recall@10 is .0594 with the division and .0520 without. With one row more, for popularity, the path that says False
# holds .0594: an ablation that finds no difference. Numbers in a column with a gap keep their values, as floats.
#
# Pull request 948 brought the rule for columns of booleans. The maintainer then asked why the types of the table aren't relied on. With pandas'
# type "boolean" Paramspace raises a TypeError. An issue on columns with gaps wasn't found, and the documentation says that `instance`
# gives the values of the row. Take the row from the table by a number of the run, compare with == "True", or write 1 and 0.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. On ml-100k, which the package recbole brings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile snakemake==9.27.1 pandas==2.3.3 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps --target "$folder/data" recbole==1.2.1  # for its ml-100k
cd "$folder"
cat > score.py <<'P'
"""Recall@10 of item neighbours or of popularity, leave-last-out. A script of a Snakemake rule."""
import numpy as np
setting = snakemake.params.setting
lines = [line.split("\t") for line in open("data/recbole/dataset_example/ml-100k/ml-100k.inter").read().splitlines()[1:]]
taken = {}
for user, item, _, time in sorted(lines, key=lambda line: (float(line[3]), int(line[1]))):
    taken.setdefault(user, []).append(int(item))
had = np.zeros((len(taken), 1683), dtype=np.float32)
for row, items in enumerate(taken.values()):
    had[row, items[:-1]] = 1
if setting["model"] == "popularity":
    scores = np.broadcast_to(had.sum(0), had.shape)
else:
    similar = had.T @ had
    if setting["normalise"]:
        similar /= np.sqrt(np.outer(had.sum(0), had.sum(0))) + 1e-9
    np.fill_diagonal(similar, 0)
    scores = had @ similar
targets = [items[-1] for items in taken.values()]
ahead = np.where(had > 0, False, scores > scores[np.arange(len(had)), targets][:, None]).sum(1)
print(f"{np.mean(ahead < 10):.4f}", repr(setting["normalise"]), file=open(snakemake.output[0], "w"))
P
cat > Snakefile <<'S'
import pandas
from snakemake.utils import Paramspace
space = Paramspace(pandas.read_csv(config["table"]))
rule all:
    input: expand(config["table"] + ".out/{setting}.txt", setting=space.instance_patterns)
rule score:
    output: f"{config['table']}.out/{space.wildcard_pattern}.txt"
    params: setting=space.instance
    script: "score.py"
S
cat > whole.csv <<'C'
model,normalise
knn,True
knn,False
C
cat > gap.csv <<'C'
model,normalise
knn,True
knn,False
popularity,
C
cat > check.py <<'P'
import os, subprocess, sys
from importlib.metadata import version
environment = dict(os.environ, OMP_NUM_THREADS="1")
def run(table):
    """The figures of a table's runs."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--config", f"table={table}"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    rows = [line.split(",") for line in open(table).read().splitlines()[1:]]
    files = [f"{table}.out/model~{model}/normalise~{normalise or 'NA'}.txt" for model, normalise in rows]
    results = [open(file).read().split(" ", 1) for file in files]
    for file, (figure, value) in zip(files, results):
        print(f"{file}: {figure}, normalise is {value.strip()}")
    return [(float(figure), value.strip()) for figure, value in results]
whole, gap = run("whole.csv"), run("gap.csv")
print(*(f"{name} {version(name)}" for name in ("snakemake", "pandas", "numpy")))
control = whole[1][1] == "False" and whole[0][0] != whole[1][0]
wrong = gap[0][0] == gap[1][0] == whole[0][0] and gap[1][1] == "'False'" and gap[2][1] == "<NA>"
sys.exit(not (control and wrong))
P
"$folder/venv/bin/python" check.py
