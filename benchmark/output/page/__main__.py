"""Make the page of finished runs, one file that is opened from disk and asks for nothing: `python -m benchmark.output.page`.

    python -m benchmark.output.page --datasets ml-100k --methods popularity sasrec r2ec --seeds 3

Its title and first sentences say what these runs show. Below them: a leaderboard to sort and filter, any two methods held against
each other, the ablations and claims in --factors (what `benchmark.output.ablations` and `benchmark.output.claims` left), what was
written for each case, and where all of it comes from. --reference: the method that a comparison begins with.
"""

from benchmark.analysis.collect import arguments, collect_all
from benchmark.errors import command, command_line
from benchmark.output.page.data import document
from benchmark.output.page.html import render
from benchmark.storage.io import write_text


@command
def main() -> None:
    given = arguments(command_line("benchmark.output.page", __doc__), out="report", factors=True, reference=True)
    about, parts = document(
        collect_all(given), given.results, given.factors, given.ablations, given.reference, given.note
    )
    write_text(given.out / "index.html", render(about, parts))


if __name__ == "__main__":
    main()
