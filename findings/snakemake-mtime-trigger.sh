#!/usr/bin/env bash
# Snakemake 9.27.1: `--rerun-triggers` without mtime leaves jobs to be run for a newer date, where a file is over a megabyte.
#
# The option's list offers `mtime`, so that one would guess that a call without it asks for code, parameters or inputs alone. The
# choice is read nowhere: a newer input plans its job under every list of triggers. What may keep it from running is
# the checksum of the input that was recorded with the output, and files over 1,000,000 bytes (--max-checksum-file-size) have none. So of two
# files with new dates and old contents the large one reruns all that reads it: of a workflow, what was trained longest.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 or newer and a package index.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check snakemake==9.27.1
cd "$folder"
cat > Snakefile <<'S'
rule all:
    input: "small.copy", "large.copy"

rule copy:
    input: "{name}.data"
    output: "{name}.copy"
    shell: "cp {input} {output}"
S
head -c 900000 /dev/zero > small.data
head -c 1100000 /dev/zero > large.data
"$folder/venv/bin/snakemake" --cores 1 > log 2>&1
sleep 2
touch small.data large.data
planned() {
    "$folder/venv/bin/snakemake" -n "$@" > log 2>&1
    said=$(grep -oE "Updated input files: .*|Nothing to be done" log | sort -u | paste -sd ';')
    echo "$*: $said"
}
planned --rerun-triggers code input params software-env
[ "$said" = "Updated input files: large.data" ] || exit 1
planned --rerun-triggers params
[ "$said" = "Updated input files: large.data" ] || exit 1
planned --rerun-triggers mtime
[ "$said" = "Updated input files: large.data" ] || exit 1
echo "As described: the triggers make no difference; the size of the file does."
