import atexit

from snakemake.settings.enums import Quietness

from benchmark.jobs.last_words import (
    of_failure,
    of_rows,
    of_success,
    places,
    written_down,
)
from benchmark.jobs.screen import Job, Lines, Progress, Watch, say, shown_root, take


def planned_jobs():
    """What Snakemake is going to run, once it knows, and what is estimated of it."""
    found = []
    for job in workflow.dag.needrun_jobs():
        named = {name: str(value) for name, value in job.wildcards_dict.items()}
        expected = of_rule(settings, ablations, job.rule.name, named, Path("results"))
        wide = plan.entry(named["method"]) if job.rule.name == "run" else None
        found.append(
            Job(
                job.rule.name,
                tuple(sorted(named.items())),
                expected,
                wide.threads if wide else 1,
                wide.gpus if wide else 0,
            )
        )
    # Of GPUs there are as many as --resources says.
    gpus = getattr(workflow.global_resources.get("gpu"), "value", None)
    here = workflow.cores if workflow.local_exec else workflow.nodes
    return Progress(found, here, gpus)


def plan_in_words(jobs):
    """A plan and what it takes."""
    named = [(job.rule, dict(job.wildcards)) for job in jobs]
    cores = workflow.cores if workflow.local_exec else None
    return table(settings, Path("results"), named, cores)


def ends_in():
    """Rules that the targets of this run end in, whether or not they had to run."""
    return {job.rule.name for job in workflow.dag.jobs}


def root():
    """The run's folder as the user names it."""
    return shown_root(Path(workflow.rundir))


def where():
    """The places of tables, plots and page."""
    return places(Path("results"), ends_in(), settings.ablations_folder, root())


watch = Watch(planned_jobs)


def start_screen():
    """Short lines from here on."""
    lines = Lines(watch, workflow.output_settings, plan_in_words, where, stale)
    take(workflow.logger_manager.logger, watch, lines)


def failed_runs():
    """Runs of which nothing but a sentence is there: their rows say that they failed."""
    files = {str(path) for job in workflow.dag.jobs for path in job.output}
    return written_down(sorted(path for path in files if Path(path).name == "run.json"))


def rows_of(failed):
    """What is said of them in the end."""
    return of_rows(failed, root(), workflow.output_settings.show_failed_logs)


def end_well():
    """Table and places, behind all that Snakemake itself still says; an exit code of 1 where a run failed."""
    failed = failed_runs()
    if failed:  # said last: what is registered first comes last
        atexit.register(say, rows_of(failed))
    if Quietness.ALL not in (workflow.output_settings.quiet or ()):
        head = watch.summary()
        text = of_success(
            Path("results"), ends_in(), settings.ablations_folder, head, root()
        )
        atexit.register(say, text)
    if failed:
        raise SystemExit(1)


def end_badly():
    """Why jobs failed, behind all that Snakemake itself still says."""
    rows = failed_runs()
    failed = list(watch.failed.values())
    if rows and not watch.stopped:
        atexit.register(say, rows_of(rows))
    atexit.register(say, of_failure(failed, watch.stopped, root()))
