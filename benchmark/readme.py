"""`python -m benchmark.readme`: put the table of the last full run, results/tables/main.md, at the top of README.md."""

import argparse
from pathlib import Path

from benchmark.errors import InputError, command
from benchmark.io import write_text

BEGIN, END = "<!-- table of the last full run: make readme -->", "<!-- end of the table -->"


def with_table(readme: str, table: str, where: str) -> str:
    """The README's text with `table` between its two marks. Raises InputError where they are missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, behind = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{where}: the lines {BEGIN!r} and {END!r} are missing; put them where the table shall stand")
    return f"{before}{BEGIN}\n{table.strip()}\n{END}{behind}"


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument("--table", type=Path, default=Path("results/tables/main.md"))
    given = parser.parse_args()
    if not given.table.is_file():
        raise InputError(f"{given.table}: missing; run `make reproduce` first")
    text = with_table(
        given.readme.read_text(encoding="utf-8"), given.table.read_text(encoding="utf-8"), str(given.readme)
    )
    write_text(given.readme, text)


if __name__ == "__main__":
    main()
