#!/usr/bin/env bash
# Snakemake 9.27.1: a job that fails takes the knowledge with it that its outputs were wanted anew.
#
# `late` reads what `early` writes. A parameter of `early` changes, so that Snakemake plans both; it removes early.txt, and
# `early` fails. Given once more, the same command says "Nothing to be done" and exits 0: late.txt, which was made with the old
# parameter, counts as up to date, as a missing intermediate file is no reason to run and the record of `early` went with its file.
# One would guess that a run that failed fails again. Seen with the default triggers (code, input, mtime, params, software-env).
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 or newer and a package index.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check snakemake==9.27.1
cd "$folder"
cat > Snakefile <<'S'
rule late:
    input: "early.txt"
    output: "late.txt"
    shell: "cp {input} {output}"

rule early:
    output: "early.txt"
    params: size=config["size"]
    shell: "test {params.size} -lt 100 && echo {params.size} > {output}"
S
run() {
    code=0
    "$folder/venv/bin/snakemake" --cores 1 --config size="$1" > log 2>&1 || code=$?
    said=$(grep -oE "Nothing to be done|Error in rule early|steps \(100%\) done" log | head -1 || true)
    echo "size=$1: exit $code, '$said', late.txt: $(cat late.txt), early.txt: $(cat early.txt 2>/dev/null || echo none)"
}
run 10
run 1000
run 1000
[ "$code" = 0 ] && [ "$said" = "Nothing to be done" ] && [ "$(cat late.txt)" = 10 ] && [ ! -e early.txt ] || exit 1
echo "As described: the third call is content with a late.txt of size 10."
