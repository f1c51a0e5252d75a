#!/usr/bin/env bash
# Snakemake 9.27.1: with --replace-workflow-config the jobs of `run:` blocks and of a cluster still compute with the settings that were replaced.
#
# The option's text says that a config file given with it takes the place of the workflow's own, so that keys which it doesn't define are
# undefined. Here a workflow has a config of its own, which reads the newest 7 days alone. A config without `days`, for the paper, is given
# with the option, and a missing `days` stands for all days. What Snakemake plans, and records as done, is that all days are read.
#
# But a job of a `run:` block is run by a Snakemake of its own, and so is every job that is sent to a cluster. Of the options that these are
# started with this one isn't, so that they merge the two files and read 7 days. On ml-100k Recall@10 of popularity is then .0604 in a `run:`
# block, in the same call in which it is .0498 in a `shell:` rule. With cluster-generic 1.0.9 the shell rule has .0604, too. The calls exit 0 and
# print nothing on it. As the record has the setting that wasn't used, a later call with the option says "Nothing to be done".
#
# The option came with pull request 3381. An issue that it doesn't reach all jobs wasn't found. Give the workflow no config of its own, or set
# every key of it in the file that replaces it.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. On ml-100k, which the package recbole brings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile snakemake==9.27.1 \
    snakemake-executor-plugin-cluster-generic==1.0.9
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps --target "$folder/data" recbole==1.2.1  # for its ml-100k
cd "$folder"
cat > recent.py <<'P'
"""Recall@10 of what was popular in the newest days, on each user's last item among those that the user didn't take before."""
import sys
from collections import Counter
def recall(days):
    lines = [line.split("\t") for line in open("data/recbole/dataset_example/ml-100k/ml-100k.inter").read().splitlines()[1:]]
    taken = {}
    for user, item, _, time in sorted(lines, key=lambda line: (float(line[3]), int(line[1]))):
        taken.setdefault(user, []).append((item, float(time)))
    end = max(time for items in taken.values() for _, time in items)
    since = end - 86400 * days if days else 0
    popular, hits = Counter(item for items in taken.values() for item, time in items[:-1] if time >= since), 0
    for *before, (target, _) in taken.values():
        had = {item for item, _ in before}
        hits += sum(count > popular[target] for item, count in popular.items() if item not in had) < 10
    return hits / len(taken)
if __name__ == "__main__":
    print(f"{recall(int(sys.argv[1])):.4f}", file=open(sys.argv[2], "w"))
P
cat > config.yaml <<'Y'
days: 7
Y
cat > paper.yaml <<'Y'
name: paper
Y
cat > Snakefile <<'S'
configfile: "config.yaml"
rule by_shell:
    output: "{call}.by_shell.txt"
    params: days=config.get("days", 0)
    shell: "python recent.py {params.days} {output}"
rule by_run:
    output: "{call}.by_run.txt"
    params: days=config.get("days", 0)
    run:
        import recent
        print(f"{recent.recall(params.days):.4f}", file=open(output[0], "w"))
S
cat > check.py <<'P'
import base64, json, os, re, subprocess, sys
from importlib.metadata import version
import recent
environment = dict(os.environ, PATH=os.path.dirname(sys.executable) + ":" + os.environ["PATH"], PYTHONPATH=os.getcwd())
def run(*arguments):
    """What a call of Snakemake says, and the figures that are then there."""
    files = [argument for argument in arguments if argument.endswith(".txt")]
    options = ["--configfile", "paper.yaml", "--replace-workflow-config"]
    command = [sys.executable, "-m", "snakemake", *arguments, *options]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    said = re.search(r"Nothing to be done|steps \(100%\) done", done.stderr).group()
    figures = [float(open(file).read()) for file in files]
    records = [json.load(open(".snakemake/metadata/" + base64.urlsafe_b64encode(file.encode()).decode()))["params"] for file in files]
    print(*(f"{file}: {figure}, days on record: {record};" for file, figure, record in zip(files, figures, records)), f"'{said}'")
    return said, figures, records
right, replaced = round(recent.recall(0), 4), round(recent.recall(7), 4)
print(f"all days: {right}, 7 days: {replaced}")
local = run("local.by_shell.txt", "local.by_run.txt", "--cores", "1")
again = run("local.by_shell.txt", "local.by_run.txt", "--cores", "1")
cluster = run("cluster.by_shell.txt", "--jobs", "1", "--executor", "cluster-generic", "--cluster-generic-submit-cmd", "bash")
print(*(f"{name} {version(name)}" for name in ("snakemake", "snakemake-executor-plugin-cluster-generic")))
mixed = local[1] == again[1] == [right, replaced] and cluster[1] == [replaced] and right != replaced
quiet = again[0] == "Nothing to be done" and local[2] == again[2] == [["0"], ["0"]] and cluster[2] == [["0"]]
sys.exit(not (mixed and quiet))
P
"$folder/venv/bin/python" check.py
