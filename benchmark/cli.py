"""The command line of the project: `r2ec-bench`, or `python -m benchmark.cli`.

It starts other modules and does nothing itself. Each command takes this process's place, so that exit codes are the
command's own, and Ctrl-C reaches it and its jobs.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from benchmark.shipped import shipped

QUICK = Path("results/quick")
ABOUT = "Does an LLM that reasons before it recommends do better? Measure it on public data, or on your own."
WORKFLOW = {
    "run": "run a config: datasets, methods, tables, plots, a page",
    "quick": "a first look in minutes, in results/quick",
}
# Commands with a module of their own, to which all that follows goes.
MODULES = {
    "recommend": ("r2ec.recommend", "ask a trained R2ec: one user's history in, its reasoning and the best items out"),
    "check-data": (
        "benchmark.data.check_data",
        "say what of your data would be dropped, and why, before anything runs",
    ),
    "check-table": (
        "benchmark.statistics.check_table",
        "say which rows of a printed table of Hit@k and NDCG@k can't be",
    ),
    "publish": ("benchmark.output.publish", "copy a finished run's tables, plots and page to results/published"),
    "export": ("benchmark.transfer.export_runs", "copy a config's finished runs to a folder, for another machine"),
    "import": (
        "benchmark.transfer.import_runs",
        "take a config's runs from such a folder; only the others run",
    ),
}
RUN = """Run everything that CONFIG names: get and prepare the datasets, fit and rank with every method, and make
tables, plots and a page. Results that still follow from CONFIG and data are kept. After Ctrl-C, or a failed job, the
same command goes on where it stopped. After kill -9 or a power cut give it once with `-- --unlock` behind it first.
"""
QUICK_RUN = """A first look in minutes, on two processor cores: one small dataset, few methods, and R2ec on a real
small LLM, with and without a reasoning. It writes to results/quick and changes nothing else. The numbers are of a small
sample: look at them, don't cite them.
"""
EPILOG = """examples:
  r2ec-bench quick                                   a first look, in minutes
  r2ec-bench check-data my-shop                      what becomes of my-shop/interactions.csv and my-shop/items.csv
  r2ec-bench run my-config.yaml --dry-run            what would be run, and how long it may take
  r2ec-bench run my-config.yaml --cores 4            run it
  r2ec-bench recommend --run results/runs/ml-100k/r2ec/seed1 --data results/data/ml-100k --history "Toy Story=5"

`r2ec-bench COMMAND --help` says what a command takes.
"""
PASSED_ON = "all that stands behind -- goes to Snakemake, such as: -- --keep-going"


def parsers() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    summaries = WORKFLOW | {name: summary for name, (_, summary) in MODULES.items()}
    parser = argparse.ArgumentParser(
        prog="r2ec-bench",
        usage="r2ec-bench COMMAND ...",
        description=f"{ABOUT}\n\ncommands:\n"
        + "\n".join(f"    {name:12} {summary}" for name, summary in summaries.items()),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    shape = argparse.RawDescriptionHelpFormatter
    run = commands.add_parser(
        "run",
        description=RUN,
        epilog=PASSED_ON,
        usage="r2ec-bench run [CONFIG] [--cores N] [--dry-run] [--fresh] [--directory FOLDER] "
        "[-- SNAKEMAKE'S ARGUMENTS]",
        formatter_class=shape,
    )
    run.add_argument(
        "config",
        nargs="?",
        default="config/config.yaml",
        metavar="CONFIG",
        help="a YAML file of your own, or one of the project's, such as config/smoke.yaml (default: "
        "config/config.yaml)",
    )
    run.add_argument(
        "--directory",
        type=Path,
        default=Path("."),
        metavar="FOLDER",
        help="where results/ and resources/ are written, and from which CONFIG's paths of data count (default: here)",
    )
    quick = commands.add_parser(
        "quick",
        description=QUICK_RUN,
        epilog=PASSED_ON,
        usage="r2ec-bench quick [--cores N] [--dry-run] [--fresh] [-- SNAKEMAKE'S ARGUMENTS]",
        formatter_class=shape,
    )
    for subparser in (run, quick):
        subparser.add_argument(
            "--cores", type=_cores, default="all", metavar="N", help="processor cores to use (default: all)"
        )
        subparser.add_argument(
            "--dry-run", action="store_true", help="only say what would be run, and how long it may take"
        )
        subparser.add_argument(
            "--fresh",
            action="store_true",
            help="make everything anew, whatever has been made: runs, kept states and texts; downloads stay",
        )
    for name in MODULES:
        commands.add_parser(name, add_help=False)
    return parser


def _cores(text: str) -> str:
    if text != "all" and not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a number from 1 or 'all', found {text!r}")
    return text


def config_file(name: str) -> Path:
    """The user's own file of this name, or the project's. Ends the program where there is neither."""
    for path in (Path(name), shipped(name)):
        if path.is_file():
            return path.resolve()
    from benchmark.config.wording import did_you_mean  # here, as --help has to come at once

    files = sorted(path.name for path in shipped("config").glob("*.yaml"))
    known = [f"config/{file}" for file in files if file != "shared.yaml"]  # which holds parts of configs
    own = [str(path) for path in sorted(Path(name).parent.glob("*.y*ml"))]
    meant = did_you_mean(name, [*own, *known])
    what = f"{meant} Give" if meant else "; give"
    print(f"error: {name}: no such file{what} a config of your own, or one of {', '.join(known)}", file=sys.stderr)
    sys.exit(2)


def readable(path: Path) -> None:
    """Ends the program where a config is no YAML: Snakemake says neither what is wrong there nor in which line."""
    from benchmark.config.read import read_yaml  # here, as --help has to come at once
    from benchmark.errors import InputError

    try:
        read_yaml(path)
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)


def own_folder(folder: Path) -> None:
    """Make a folder to run in, which shares the downloads in resources/ with other runs."""
    writable(Path())
    Path("resources").mkdir(exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "resources"
    if not link.exists():
        link.unlink(missing_ok=True)  # one that leads nowhere
        link.symlink_to(Path(os.path.relpath("resources", folder)), target_is_directory=True)


def with_fresh(more: list[str]) -> list[str]:
    """Snakemake's arguments with the wish for a fresh start, among the settings that they change where they change any.

    >>> with_fresh(["ablations"]), with_fresh(["--config", "seeds=1", "--keep-going"])
    (['ablations', '--config', 'fresh=true'], ['--config', 'fresh=true', 'seeds=1', '--keep-going'])
    """
    for option in ("--config", "-C"):
        if option in more:
            at = more.index(option) + 1
            return [*more[:at], "fresh=true", *more[at:]]
    return [*more, "--config", "fresh=true"]


def writable(directory: Path) -> None:
    """Ends the program where a run can't write: Snakemake would say so in a traceback, or in the middle of the run."""
    from benchmark.errors import InputError
    from benchmark.storage.writable import check_cache, check_writable

    try:
        check_cache()
        check_writable(directory)
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)


def workflow(config: str, directory: Path, cores: str, dry_run: bool, more: list[str]) -> NoReturn:
    """Run the workflow in `directory`, in place of this process."""
    path = config_file(config)
    readable(path)
    writable(directory)
    arguments = ["--snakefile", str(shipped("workflow/Snakefile")), "--configfile", str(path)]
    arguments += [
        "--directory",
        str(directory),
        "--cores",
        cores,
        *(["--dry-run", "--quiet=rules"] if dry_run else []),
    ]
    become("snakemake", [*arguments, *more])


def become(module: str, arguments: list[str], called: str = "") -> NoReturn:
    """Go on as `python -m module`, in the same process: no process of ours stays between it and the terminal.

    called: the command that its --help names.
    """
    sys.stdout.flush()
    # The name is `benchmark.errors.CALLED`, whose import takes too long for --help.
    named = {"R2EC_BENCH_CALLED": called} if called else {}
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], os.environ | named)


def main(argv: list[str] | None = None) -> None:
    """Run the command. argv: the words behind `r2ec-bench`; None: those of this process."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in MODULES:
        become(MODULES[words[0]][0], words[1:], f"r2ec-bench {words[0]}")
    at = words.index("--") if "--" in words else len(words)
    own, more = words[:at], words[at + 1 :]
    args = parsers().parse_args(own)
    more = with_fresh(more) if args.fresh else more
    if args.command == "quick":
        own_folder(QUICK)
        workflow("config/quick.yaml", QUICK, args.cores, args.dry_run, more)
    workflow(args.config, args.directory, args.cores, args.dry_run, more)


if __name__ == "__main__":
    main()
