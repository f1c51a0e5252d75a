"""Turn the files of one dataset into training, validation and test cases: `python -m benchmark.data.prepare`.

The workflow calls this for each dataset of a config. To see what becomes of data of your own, ask `r2ec-bench
check-data` first.

    python -m benchmark.data.fetch --settings "$entry" --out fetched.json
    python -m benchmark.data.prepare --dataset shop --settings "$entry" --manifest fetched.json --out results/data/shop

The folder --out gets items.parquet, train.parquet, valid.parquet, test.parquet (without targets), test_targets.parquet
(read by the evaluator alone) and dataset.json (counts, settings, checksums of the sources, hash of the split). It
appears whole or not at all.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.config.wording import many
from benchmark.data.account import share
from benchmark.data.protocol import Account, Prepared, prepare, without_targets
from benchmark.data.settings import DatasetConfig, read_dataset_settings, source_of
from benchmark.data.store import LLM, check_cases, read_cases, write_cases
from benchmark.datasets import Expected
from benchmark.datasets._texts import TextsOnDisk
from benchmark.errors import InputError, command, command_line
from benchmark.storage.checksums import seal, sums_of
from benchmark.storage.io import atomic, read_json, write_json
from benchmark.storage.wheel import check_sha256


def split_hash(prepared: Prepared) -> str:
    """The sha256 over items, cases and targets: two runs have the same one exactly if their data are the same."""
    digest = hashlib.sha256()
    for name, parts in columns_in_parts(prepared):
        digest.update(f"{name}\x1f".encode())
        for part in parts:
            texts = part.astype(object).where(part.notna(), "").astype(str)
            digest.update("".join(f"{text}\x1f" for text in texts).encode())
        digest.update(b"\x1e")
    for cases in (prepared.train, prepared.valid, prepared.test):
        ratings = np.where(np.isnan(cases.ratings), np.float32(np.nan), cases.ratings)  # one bit pattern for "none"
        for array in (
            cases.case,
            cases.user,
            cases.time,
            cases.offsets,
            cases.items,
            ratings,
            cases.times,
            cases.target,
        ):
            digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(prepared.llm_rows.astype(np.int64).tobytes())
    return digest.hexdigest()


def columns_in_parts(prepared: Prepared, rows: int = 2**16) -> Iterator[tuple[str, Iterator[pd.Series]]]:
    """Name and values of each column of the items, those on disk last, `rows` at a time, as there may be gigabytes."""

    def in_memory(column: pd.Series) -> Iterator[pd.Series]:
        return (column.iloc[start : start + rows] for start in range(0, len(column), rows))

    def on_disk(texts: TextsOnDisk, name: str) -> Iterator[pd.Series]:
        return (batch.column(name).to_pandas() for batch in texts.batches())

    for name, column in prepared.items.items():
        yield str(name), in_memory(column)
    if prepared.texts is not None:
        for name in prepared.texts.names:
            yield name, on_disk(prepared.texts, name)


def write_items(prepared: Prepared, path: Path) -> None:
    """Write items.parquet with all columns; those on disk are copied batch by batch."""
    items, texts = prepared.items, prepared.texts
    if texts is None:
        items.to_parquet(path, index=False)
        return
    none = {name: pd.Series([], dtype=pd.ArrowDtype(pa.large_string())) for name in texts.names}
    schema = pa.Table.from_pandas(items.iloc[:0].assign(**none), preserve_index=False).schema
    done = 0
    with pq.ParquetWriter(path, schema) as out:
        for batch in texts.batches():
            beside = pa.Table.from_pandas(items.iloc[done : done + batch.num_rows], preserve_index=False)
            out.write_table(pa.Table.from_arrays([*beside.columns, *batch.columns], schema=schema))
            done += batch.num_rows


def check_parts(prepared: Prepared, name: str) -> None:
    """Raises InputError if the cases break the contract."""
    for part, cases in (("train", prepared.train), ("valid", prepared.valid), ("test", prepared.test)):
        check_cases(cases, f"{name}: {part}")


def write_dataset(prepared: Prepared, about: dict, folder: Path) -> None:
    """Write the prepared dataset, whole or not at all. Raises InputError if its cases break the contract."""
    check_parts(prepared, about["dataset"])
    with atomic(folder) as temporary:
        temporary.mkdir()
        write_items(prepared, temporary / "items.parquet")
        write_cases(temporary / "train.parquet", prepared.train, with_target=True, llm_rows=prepared.llm_rows)
        write_cases(temporary / "valid.parquet", prepared.valid, with_target=True)
        write_cases(temporary / "test.parquet", without_targets(prepared.test), with_target=False)
        targets = {"case": prepared.test.case, "target": prepared.test.target}
        pq.write_table(pa.table(targets), temporary / "test_targets.parquet")
        check_written(prepared, temporary, about["split_hash"])
        write_json(temporary / "dataset.json", sealed_about(about | {"rating_scale": prepared.rating_scale}, temporary))


def sealed_about(about: dict, folder: Path) -> dict:
    """dataset.json of what lies in the folder: with the checksum of each file, and that of dataset.json itself."""
    return seal(about | {"files": sums_of(folder)})


def check_written(prepared: Prepared, folder: Path, expected: str) -> None:
    """Compute the split's hash again from the files. Raises InputError unless it is `expected`."""
    answers = pq.read_table(folder / "test_targets.parquet")
    test = replace(
        read_cases(folder / "test.parquet", targets=False), target=answers.column("target").to_numpy().astype("int32")
    )
    of_llm = pq.read_table(folder / "train.parquet", columns=[LLM]).column(LLM).to_numpy()
    again = replace(
        prepared,
        train=read_cases(folder / "train.parquet", targets=True),
        valid=read_cases(folder / "valid.parquet", targets=True),
        test=test,
        llm_rows=np.flatnonzero(of_llm),
    )
    if (written := split_hash(again)) != expected:
        raise InputError(
            f"{folder}: the files that were written have split_hash {written[:12]}..., the split has "
            f"{expected[:12]}...; check disk and memory of this machine and prepare again"
        )


def beside(expected: Expected, counts: dict[str, int], settings: DatasetConfig) -> tuple[bool, str]:
    """Whether the counts are those that a publication states, and a table of both with a sentence on the reason."""
    names = list(expected.counts)
    ours = {name: counts[name] for name in names}
    rows = [("", names), (expected.source, [f"{n:,}" for n in expected.counts.values()])]
    rows.append(("ours", [f"{n:,}" for n in ours.values()]))
    wide = max(len(head) for head, _ in rows)
    lines = [f"{head:{wide}}" + "".join(f"{cell:>13}" for cell in cells) for head, cells in rows]
    differ = [name for name in names if ours[name] != expected.counts[name]]
    other = [
        f"{key} {getattr(settings, key)}" for key, value in expected.settings.items() if getattr(settings, key) != value
    ]
    if not differ:
        lines.append(f"Our counts are those of {expected.source}.")
    else:
        sentence = f"OUR COUNTS DIFFER from {expected.source} in {', '.join(differ)}."
        if other:
            needed = ", ".join(f"{key} {value}" for key, value in expected.settings.items())
            sentence += f" They need {needed}; the config has {', '.join(other)}."
        lines.append(f"{sentence} {expected.advice}.")
    return not differ, "\n".join(lines)


@command
def main() -> None:
    parser = command_line("benchmark.data.prepare", __doc__)
    parser.add_argument(
        "--dataset", required=True, help="the dataset's name, from which its samples of cases are drawn"
    )
    parser.add_argument("--settings", required=True, help="its entry in a config, as JSON")
    parser.add_argument("--manifest", type=Path, required=True, help="the file that benchmark.data.fetch wrote")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write, such as results/data/ml-100k")
    args = parser.parse_args()
    settings = read_dataset_settings(args.settings)
    source, options = source_of(settings, "--settings")
    if not args.manifest.exists():
        raise InputError(f"{args.manifest}: missing; run benchmark.data.fetch first")
    manifest = read_json(args.manifest)
    entries = manifest if isinstance(manifest, list) else [None]
    if not all(isinstance(entry, dict) and {"path", "sha256"} <= entry.keys() for entry in entries):
        raise InputError(f"{args.manifest}: no list of fetched files; delete it and fetch the dataset again")
    for entry in manifest:
        check_sha256(Path(entry["path"]), entry["sha256"], "it has changed since it was fetched, so fetch it again")
    raw = source.load(options, [Path(entry["path"]) for entry in manifest], settings.limits)
    account = Account()
    try:
        prepared = prepare(raw, settings, args.dataset, account)
    finally:  # also before an error
        for warning in account.warnings:
            print(f"{args.dataset}: warning: {warning}", flush=True)
    about = {
        "dataset": args.dataset,
        "settings": settings.model_dump(mode="json"),
        "counts": prepared.counts,
        "sources": [{"file": Path(e["path"]).name, "bytes": e["bytes"], "sha256": e["sha256"]} for e in manifest],
        "split_hash": split_hash(prepared),
    }
    if account.warnings:
        about["warnings"] = account.warnings
    if raw.about:
        about["source"] = raw.about
        print(f"{args.dataset}: the source itself: {', '.join(f'{key} {value}' for key, value in raw.about.items())}")
    if raw.expected:
        equal, table = beside(raw.expected, prepared.counts, settings)
        about["expected"] = {"source": raw.expected.source, "counts": raw.expected.counts, "equal": equal}
        print(table)
    write_dataset(prepared, about, args.out)
    c = prepared.counts
    print(
        f"{args.dataset}: {many(c['users'], 'user')}, {many(c['items'], 'item')}, {many(c['cases'], 'case')}; "
        f"train {c['train']}, valid {c['valid']}, "
        f"test {c['test']} of {many(c['test_users'], 'user')}, {many(c['cold_targets_test'], 'cold target')}; "
        f"hidden by equal times: {share(c['interactions_hidden'], c['interactions'])} interactions"
    )


if __name__ == "__main__":
    main()
