"""Tables and text in GitHub's Markdown. Every Markdown table of the project is made here."""

import re
from collections.abc import Sequence

SPECIAL = r"\|_*`<>[]"
# Breaks of lines, as Python and Unicode know them, and other characters that control a terminal or a page and show
# nothing.
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def plain(text: str) -> str:
    r"""Text that Markdown shows as it is, in one line.

    >>> plain("r2ec_x: a|b\n<b>")
    'r2ec\\_x: a\\|b \\<b\\>'
    """
    return "".join("\\" + c if c in SPECIAL else c for c in UNSEEN.sub(" ", text))


def running(text: str) -> str:
    r"""Like `plain`, for sentences: underscores within a word and < or > between spaces are left without a backslash.

    >>> running("item_knn differs from _base_ at p < 0.05, a|b <i>")
    'item_knn differs from \\_base\\_ at p < 0.05, a\\|b \\<i\\>'
    """
    return re.sub(r"(?<=[^\W_])\\_(?=[^\W_])|(?<= )\\[<>](?= )", lambda match: match[0][1:], plain(text))


def table(head: Sequence[str], body: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table of cells that are Markdown already (`plain`); its first `left` columns are aligned left, others right.

    Raises ValueError for a row of another length or a cell with a line break, which would end the table.
    """
    lines = [list(head), [":--"] * left + ["--:"] * (len(head) - left), *map(list, body)]
    for line in lines:
        if len(line) != len(head):
            raise ValueError(f"a row of {len(line)} cells in a table of {len(head)} columns: {line}")
        if broken := [cell for cell in line if UNSEEN.search(cell)]:
            raise ValueError(f"the cell {broken[0]!r} has a break of the line; make it by plain()")
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
