"""The tables of config/README.md."""

from benchmark.config.methods import ROOT


def readme_rows(heading: str | None = None) -> dict[str, str]:
    """The settings in the tables of config/README.md, or in those under one heading, with the cell beside each."""
    text = (ROOT / "config" / "README.md").read_text()
    if heading is not None:
        _, heading_found, text = text.partition(f"\n{heading}")
        assert heading_found, f"config/README.md has no heading {heading!r}"
        text = text.partition("\n#")[0]
    cells = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    return {row[1].strip().strip("`"): row[2].strip() for row in cells}
