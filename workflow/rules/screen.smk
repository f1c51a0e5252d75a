import atexit

from snakemake.settings.enums import Quietness

from benchmark.jobs.gpus import too_few
from benchmark.jobs.last_words import (
    failed_runs_in,
    of_failure,
    of_others,
    of_rows,
    of_success,
    places,
)
from benchmark.jobs.screen import Job, Lines, Progress, Watch, say, shown_root, take


def planned_jobs():
    """The jobs that Snakemake has planned, with their estimates."""
    jobs = []
    for job in workflow.dag.needrun_jobs():
        named = {name: str(value) for name, value in job.wildcards_dict.items()}
        expected = of_rule(settings, ablations, job.rule.name, named, Path("results"))
        wide = plan.entry(named["method"]) if job.rule.name == "run" else None
        jobs.append(
            Job(
                job.rule.name,
                tuple(sorted(named.items())),
                expected,
                wide.threads if wide else 1,
                wide.gpus if wide else 0,
            )
        )
    # The number of GPUs is that of --resources.
    gpus = getattr(workflow.global_resources.get("gpu"), "value", None)
    here = workflow.cores if workflow.local_exec else workflow.nodes
    return Progress(jobs, here, gpus)


def plan_in_words(jobs):
    """The table of estimates of these jobs."""
    named = [(job.rule, dict(job.wildcards)) for job in jobs]
    cores = workflow.cores if workflow.local_exec else None
    text = table(settings, Path("results"), named, cores)
    most = max((job.gpus for job in jobs), default=0)
    missing = too_few(most) if workflow.local_exec else ""
    return f"{text}\n{missing}" if missing else text


def ends_in():
    """The rules of all jobs of this run, whether or not they had to run."""
    return {job.rule.name for job in workflow.dag.jobs}


def files_made():
    """The files that all jobs of this run make, whether or not they had to run."""
    return {str(path) for job in workflow.dag.jobs for path in job.output}


def root():
    """The run's folder as the user names it."""
    return shown_root(Path(workflow.rundir))


def where():
    """The places of tables, plots and page, and what lies there of other configs."""
    made_here = places(Path("results"), ends_in(), settings.ablations_folder, root())
    return [*made_here, *others()]


def others():
    """A line on tables and plots that the whole config doesn't make, or none."""
    if "all" not in ends_in():
        return []
    sentence = of_others(Path("results"), files_made(), root())
    return [sentence] if sentence else []


watch = Watch(planned_jobs)


def start_screen():
    """Print short lines from here on."""
    lines = Lines(watch, workflow.output_settings, plan_in_words, where, stale)
    take(workflow.logger_manager.logger, watch, lines)
    quiet = workflow.output_settings.quiet or ()
    if not (
        workflow.output_settings.dryrun
        or {Quietness.ALL, Quietness.PROGRESS} & set(quiet)
    ):
        watch.talk()


def failed_runs():
    """The runs that have failed, each with a sentence, as their rows in the tables."""
    return failed_runs_in(
        sorted(path for path in files_made() if Path(path).name == "run.json")
    )


def rows_of(failed):
    """The last lines about failed runs."""
    return of_rows(failed, root(), workflow.output_settings.show_failed_logs)


def end_well():
    """Print the table and where results are, after Snakemake's own last messages; exit with 1 where a run failed."""
    failed = failed_runs()
    if failed:  # printed last, as functions that are registered first run last
        atexit.register(say, rows_of(failed))
    if Quietness.ALL not in (workflow.output_settings.quiet or ()):
        head = watch.summary()
        text = of_success(
            Path("results"), ends_in(), settings.ablations_folder, head, root()
        )
        text = "\n".join([text, *others()])
        atexit.register(say, text)
    if failed:
        raise SystemExit(1)


def end_badly():
    """Print why jobs failed, after Snakemake's own last messages."""
    rows = failed_runs()
    failed = list(watch.failed.values())
    if rows and not watch.stopped:
        atexit.register(say, rows_of(rows))
    atexit.register(say, of_failure(failed, watch.stopped, root()))
