#!/usr/bin/env bash
# Snakemake 9.27.1: where an ancient input is made anew, the missing output that was asked for isn't made, and the call ends with 0.
#
# `ancient` says that a newer input is no reason to run a job. A benchmark marks its prepared data so, that an update which gives equal data
# trains nothing again. But if the job that makes the ancient file has to run, Snakemake takes all jobs behind it for judged, and then
# leaves those out whose inputs are ancient, without looking at their outputs. So with new raw data and a missing table a call that asks for
# the table makes the data alone. It prints no word on the table and ends with exit code 0. The same call given again makes the table. Without
# `ancient` the first call makes both. After a run that was stopped half-way, a script that goes on at exit code 0 goes on without results.
#
# One would guess that a missing output is made whatever its inputs are marked as, as the documentation of `ancient` speaks of dates alone.
# Issue 4166, open, tells of a third rule that such a call leaves as it was. Of missing outputs nothing was found.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 or newer and a package index.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check snakemake==9.27.1
seen=""
for mark in ancient ""; do
    mkdir "$folder/shop$mark"
    cd "$folder/shop$mark"
    cat > Snakefile <<S
rule table:
    input: $mark("data.txt")
    output: "table.txt"
    shell: "sort {input} > {output}"

rule prepare:
    input: "raw.txt"
    output: "data.txt"
    shell: "tr A-Z a-z < {input} > {output}"
S
    printf 'B\nA\n' > raw.txt
    "$folder/venv/bin/snakemake" --cores 1 table.txt > log 2>&1
    sleep 2
    printf 'C\nB\nA\n' > raw.txt
    rm table.txt
    for call in 1 2; do
        "$folder/venv/bin/snakemake" --cores 1 table.txt > log 2>&1 && code=0 || code=$?
        there=$([ -e table.txt ] && echo "there" || echo "missing")
        echo "${mark:-plain} input, call $call: exit code $code, data of $(wc -l < data.txt) lines, table $there"
        seen="$seen $code$there"
    done
done
[ "$seen" = " 0missing 0there 0there 0there" ] && echo "as recorded: the first call with an ancient input left the table out" && exit 0
echo "changed: $seen"
exit 1
