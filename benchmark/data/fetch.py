"""Get the files of one dataset, check them, and list them in a manifest: `python -m benchmark.data.fetch`.

The workflow calls this for each dataset of a config. Files of your own are not copied, only checked to be there.

    python -m benchmark.data.fetch --settings '{"source": "ml_100k", "category": "movie"}' --out fetched.json

--out gets path, size and sha256 of each file, for `benchmark.data.prepare`.
"""

from pathlib import Path

from benchmark.data.settings import read_dataset_settings, source_of
from benchmark.errors import command, command_line
from benchmark.storage.io import sha256_of, write_json


@command
def main() -> None:
    parser = command_line("benchmark.data.fetch", __doc__)
    parser.add_argument("--settings", required=True, help="the dataset's entry in a config, as JSON")
    parser.add_argument(
        "--resources",
        type=Path,
        default=Path("resources"),
        help="folder in which downloads are kept (default: resources)",
    )
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    args = parser.parse_args()
    source, options = source_of(read_dataset_settings(args.settings), "--settings")
    files = source.fetch(options, args.resources)
    write_json(args.out, [{"path": str(f), "bytes": f.stat().st_size, "sha256": sha256_of(f)} for f in files])


if __name__ == "__main__":
    main()
