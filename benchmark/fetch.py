"""`python -m benchmark.fetch`: get one dataset's source files, check them, and write down what was got.

The manifest (path, bytes, sha256 of each file) is what `benchmark.prepare` reads.
"""

import argparse
from pathlib import Path

from benchmark.dataset_config import read_dataset_settings, source_of
from benchmark.errors import command
from benchmark.io import sha256_of, write_json


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", required=True, help="the dataset's entry in the config, as JSON")
    parser.add_argument("--resources", type=Path, default=Path("resources"), help="where downloads are kept")
    parser.add_argument("--out", type=Path, required=True, help="the manifest to write")
    given = parser.parse_args()
    source, options = source_of(read_dataset_settings(given.settings), "--settings")
    files = source.fetch(options, given.resources)
    write_json(given.out, [{"path": str(f), "bytes": f.stat().st_size, "sha256": sha256_of(f)} for f in files])


if __name__ == "__main__":
    main()
