"""`python -m benchmark.output.page`: make the page of finished runs, one file that is opened from disk and asks for
nothing.

    python -m benchmark.output.page --datasets ml-100k --methods popularity sasrec r2ec --seeds 3

Its title and first sentences say what these runs show. Below them: a leaderboard to sort and filter, any two methods
held against each other, the ablations and claims in --factors, what was written for each case, and where all of it
comes from. Cases are read from the runs, and statistics as `benchmark.analysis` wrote them. --reference: the method
that a comparison begins with.
"""

from benchmark.analysis.collect import collect_all
from benchmark.errors import command, command_line
from benchmark.output.arguments import page_arguments
from benchmark.output.page.data import document
from benchmark.output.page.html import render
from benchmark.storage.io import write_text


@command
def main() -> None:
    given = page_arguments(command_line("benchmark.output.page", __doc__))
    collected = collect_all(given)
    about, parts = document(collected, given.results, given.factors, given.ablations, given.reference, given.note)
    write_text(given.out / "index.html", render(about, parts))


if __name__ == "__main__":
    main()
