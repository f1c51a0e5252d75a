"""Make the page of finished runs: `python -m benchmark.output.page`.

It is one file that is opened from disk and sends no request.

    python -m benchmark.output.page --datasets ml-100k --methods popularity sasrec r2ec --seeds 3

Its title and first sentences say what these runs show. Below them are a leaderboard to sort and filter, comparisons of
any two methods, the ablations and claims in --factors, the texts of each case, and where all numbers come from. Cases
are read from the runs, and statistics from the files of `benchmark.statistics`. --reference: the method that a
comparison begins with. --thinking: what each method computes before it recommends, as `benchmark.output.thinking` takes
it; without it, the page has no view of that.
"""

from benchmark.analysis.collect import collect_all
from benchmark.errors import command, command_line
from benchmark.output.arguments import page_arguments
from benchmark.output.page.data import document
from benchmark.output.page.html import render
from benchmark.storage.io import write_text


@command
def main() -> None:
    args = page_arguments(command_line("benchmark.output.page", __doc__))
    collected = collect_all(args)
    about, parts = document(
        collected, args.results, args.factors, args.ablations, args.reference, args.note, declared=args.thinking
    )
    write_text(args.out / "index.html", render(about, parts))


if __name__ == "__main__":
    main()
