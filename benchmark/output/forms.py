"""Render a frame as a table in Markdown, LaTeX, csv and text for a terminal."""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmark.config.wording import printable
from benchmark.metrics import METRICS
from benchmark.output.captions import DAGGER, notes
from benchmark.output.cells import Cell, cells
from benchmark.output.markdown import UNSEEN, plain, running, table
from benchmark.statistics.files import no_formula


def _rows(
    frame: pd.DataFrame, cell: Callable[[Cell], str], name: Callable[[str], str], rows: str = "method"
) -> list[list[str]]:
    """Header and body as strings, for every markup; the dataset has a column where there are several."""
    several = frame.dataset.nunique() > 1
    head = [*(["dataset"] if several else []), rows, *METRICS]
    body = [
        [*([name(dataset)] if several else []), name(method), *map(cell, row)]
        for dataset, method, row in zip(frame.dataset, frame.method, cells(frame), strict=True)
    ]
    return [head, *body]


@dataclass(frozen=True)
class FailedRow:
    """A row whose run has failed, with the reason in place of numbers."""

    dataset: str
    method: str
    why: str  # with the path of the log

    @property
    def text(self) -> str:
        """The text in the place of its numbers."""
        return f"failed: {self.why}"


def failed_rows(failed: pd.DataFrame, rows: str = "method") -> list[FailedRow]:
    """The rows of a file of failures, as the forms take them; rows: the column of their names."""
    return [FailedRow(*row) for row in failed[["dataset", rows, "why"]].itertuples(index=False, name=None)]


def csv_with_failed(frame: pd.DataFrame, failed: pd.DataFrame) -> str:
    """A table's csv with failed rows behind all others, and their reasons in a column `failed`."""
    if not len(failed):
        return csv(frame)
    whole = pd.read_csv(io.StringIO(csv(frame)), dtype=str, keep_default_na=False).assign(failed="")
    both = pd.concat([whole, failed.rename(columns={"why": "failed"}).map(no_formula)], ignore_index=True)
    text: str = both.to_csv(index=False, lineterminator="\n")
    return text


def _with_failed(
    body: list[list[str]], frame: pd.DataFrame, failed: Sequence[FailedRow], line: Callable[[FailedRow], list[str]]
) -> list[list[str]]:
    """The rows of the table, with each dataset's failed rows behind its others. line: makes a failed row's cells."""
    out = []
    for i, row in enumerate(body):
        out.append(row)
        dataset = frame.dataset.iloc[i]
        if i + 1 == len(body) or frame.dataset.iloc[i + 1] != dataset:
            out += [line(failed_row) for failed_row in failed if failed_row.dataset == dataset]
    return out


def markdown(
    frame: pd.DataFrame, caption: list[str] | None = None, rows: str = "method", failed: Sequence[FailedRow] = ()
) -> str:
    """The table in GitHub's Markdown, below it `caption`, or `notes` of it; `rows`: what a row is called."""

    def cell(c: Cell) -> str:
        mean = {1: f"**{c.mean}**", 2: f"<ins>{c.mean}</ins>", 0: c.mean}[c.place]
        sd = f" ± {c.sd}" if c.sd else ""
        return f"{mean}{DAGGER if c.dagger else ''}{sd}<br><sub>[{c.low}, {c.high}]</sub>"

    head, *body = _rows(frame, cell, plain, rows)
    left = len(head) - len(METRICS)

    def without(failed_row: FailedRow) -> list[str]:
        names = [plain(failed_row.dataset), plain(failed_row.method)][2 - left :]
        return [*names, plain(failed_row.text), *[""] * (len(METRICS) - 1)]

    rendered = table(head, _with_failed(body, frame, failed, without), left=left)
    return "\n\n".join([rendered, *map(running, caption or notes(frame))]) + "\n"


def latex(
    frame: pd.DataFrame, caption: list[str] | None = None, rows: str = "method", failed: Sequence[FailedRow] = ()
) -> str:
    """The same as a LaTeX table environment; needs booktabs and graphicx."""

    def cell(c: Cell) -> str:
        mean = {1: rf"\textbf{{{c.mean}}}", 2: rf"\underline{{{c.mean}}}", 0: c.mean}[c.place]
        sd = rf" {{\scriptsize$\pm${c.sd}}}" if c.sd else ""
        dagger = r"$^\dagger$" if c.dagger else ""
        return rf"\shortstack[r]{{{mean}{dagger}{sd}\\{{\scriptsize[{c.low}, {c.high}]}}}}"

    head, *body = _rows(frame, cell, plain_latex, rows)
    left = len(head) - len(METRICS)
    rule = "\\midrule"
    lines = [latex_row(map(plain_latex, head)), rule]
    for i, line in enumerate(body):
        if i and frame.dataset.iloc[i] != frame.dataset.iloc[i - 1]:
            lines.append(rule)
        lines.append(latex_row(line, space="[2pt]"))
        if i + 1 == len(body) or frame.dataset.iloc[i + 1] != frame.dataset.iloc[i]:
            for failed_row in [row for row in failed if row.dataset == frame.dataset.iloc[i]]:
                names = [plain_latex(failed_row.dataset), plain_latex(failed_row.method)][2 - left :]
                words = rf"\multicolumn{{{len(METRICS)}}}{{p{{0.7\textwidth}}}}{{{plain_latex(failed_row.text)}}}"
                lines.append(latex_row([*names, words], space="[2pt]"))
    words = " ".join(map(plain_latex, caption or notes(frame)))
    return "\n".join(
        [
            "% needs \\usepackage{booktabs,graphicx}",
            r"\begin{table*}[t]",
            r"\centering",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{{'l' * left}{'r' * len(METRICS)}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            rf"\caption{{{words}}}",
            r"\end{table*}",
            "",
        ]
    )


def latex_row(cells_of_it: Iterable[str], space: str = "") -> str:
    r"""One row of a LaTeX table, of cells that are LaTeX already.

    An empty group stands before a bracket or a star, which the `\\` of the row before would take for its own argument.

    >>> latex_row(["[x]", "0.1"]), latex_row(["a"], space="[2pt]")
    ('{}[x] & 0.1 \\\\', 'a \\\\[2pt]')
    """
    row = " & ".join(cells_of_it)
    return ("{}" if row.startswith(("[", "*")) else "") + row + r" \\" + space


def plain_latex(text: str) -> str:
    """Text that LaTeX prints as it is, in one line."""
    special = {c: "\\" + c for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
    special |= {"^": r"\textasciicircum{}", "±": r"$\pm$", DAGGER: r"$\dagger$", "<": "$<$", ">": "$>$"}
    return "".join(special.get(c, c) for c in UNSEEN.sub(" ", text))


def csv(frame: pd.DataFrame) -> str:
    """A frame as csv with a fixed number of digits: p values 4 significant, other numbers 6 decimals.

    Text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    out = frame.copy()
    for column in out.columns:
        if out[column].dtype.kind == "f":
            form = "{:.4g}" if column in ("p", "p_holm") or column.endswith("_p_holm") else "{:.6f}"
            out[column] = [("" if np.isnan(x) else form.format(x)) for x in out[column]]
        elif out[column].dtype.kind == "O":
            out[column] = [no_formula(text) if isinstance(text, str) else text for text in out[column]]
    text: str = out.to_csv(index=False, lineterminator="\n")
    return text


def show(frame: pd.DataFrame, console: Console, note: str = "", failed: Sequence[FailedRow] = ()) -> None:
    """Print to a console: `note`, one table per dataset of means with their intervals, and the caption.

    Only a terminal gets the marks of the best means.
    """

    def cell(c: Cell) -> str:
        style = {1: "bold", 2: "underline", 0: "default"}[c.place]
        # Three digits, or the table would be wider than a terminal.
        low, high = (f"{float(bound):.3f}".removeprefix("0") for bound in (c.low, c.high))
        return f"[{style}]{c.mean}[/]{DAGGER if c.dagger else ' '}\n[dim]{low}–{high}[/]"

    if note:
        console.print(f"{note}\n", markup=False, highlight=False)
    for dataset, part in frame.groupby("dataset", sort=False):
        head, *body = _rows(part, cell, escape)
        title = f"{dataset}, {'mean over seeds' if part.seeds.max() > 1 else 'one seed'}"
        shown = Table(title=escape(title), box=SIMPLE_HEAD, title_justify="left")
        for column in head:
            shown.add_column(column, justify="right" if column in METRICS else "left", no_wrap=column in METRICS)
        for line in body:
            shown.add_row(*line)
        console.print(shown)
        for failed_row in failed:
            if failed_row.dataset == dataset:
                console.print(printable(f"  {failed_row.method}: {failed_row.text}"), markup=False, highlight=False)
    for note in notes(frame, plain=not console.is_terminal):
        console.print(note, markup=False, highlight=False)
