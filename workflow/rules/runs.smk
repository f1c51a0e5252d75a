rule run:
    """Fit one method on one dataset with one seed and rank the test cases."""
    input:
        lambda wildcards: inputs_of(run_job(wildcards)),
    output:
        run_files("{dataset}", "{method}", "{seed}"),
    log:
        "results/logs/runs/{dataset}.{method}.seed{seed}.log",
    benchmark:
        "results/usage/runs/{dataset}.{method}.seed{seed}.tsv"
    priority:
        lambda wildcards: plan.priority(
            wildcards.method, int(wildcards.seed), estimated(wildcards).seconds
        )
    conda:
        "../../environment.yml"
    threads: lambda wildcards: plan.entry(wildcards.method).threads
    resources:
        gpu=lambda wildcards: plan.entry(wildcards.method).gpus,
        # For Slurm: a job is one task, however many GPUs it has.
        tasks_per_gpu=0,
        # Its supervisor ends a job that takes more.
        max_seconds=lambda wildcards: math.ceil(
            3600 * plan.entry(wildcards.method).max_hours
        ),
        max_mib=lambda wildcards: math.ceil(
            1024 * (plan.entry(wildcards.method).max_memory_gib or 0)
        ),
        attempt=lambda wildcards, attempt: attempt,
        # A second attempt asks for more.
        runtime=lambda wildcards, attempt: estimated(wildcards).runtime * attempt,
        mem_mb=lambda wildcards, attempt: estimated(wildcards).mem_mb * attempt,
        gpu_mem_mb=lambda wildcards: estimated(wildcards).gpu_mem_mb,
    params:
        module=lambda wildcards: settings.module_of(plan.base(wildcards.method)),
        params=lambda wildcards: json.dumps(
            plan.entry(wildcards.method).params, sort_keys=True
        ),
        grid=lambda wildcards: json.dumps(
            plan.entry(wildcards.method).grid, sort_keys=True
        ),
        tuned=lambda wildcards: plan.tuned_option(*run_of(wildcards)),
        variant=lambda wildcards: plan.variant_options(wildcards.method),
        work=lambda wildcards: plan.fit_of(wildcards.method),
        record=recorded(run_job),
        again=try_again,
        processes=lambda wildcards: plan.entry(wildcards.method).process_count(),
    message:
        "{wildcards.method} on {wildcards.dataset}, seed {wildcards.seed}"
    # The launched job sees the GPUs that it got, and no others. A failed run that its supervisor has recorded is an
    # output like any other: the tables say that it failed. But no record says what it was made from, so that it is
    # tried again.
    shell:
        "python -m benchmark.jobs.supervise --run {wildcards.dataset} {wildcards.method} {wildcards.seed} --log {log}"
        " --out results/runs/{wildcards.dataset}/{wildcards.method}/seed{wildcards.seed}"
        " --max-seconds {resources.max_seconds} --max-mib {resources.max_mib} {params.again}"
        " benchmark.jobs.launch --seal --gpus {resources.gpu} --processes {params.processes}"
        " benchmark.jobs.run --data results/data/{wildcards.dataset} --method {wildcards.method}"
        " --module {params.module} --seed {wildcards.seed} --params {params.params:q} --grid {params.grid:q}"
        " {params.tuned}"
        " {params.variant}"
        " --work results/work/{wildcards.dataset}/{params.work}/seed{wildcards.seed}"
        " --out results/runs/{wildcards.dataset}/{wildcards.method}/seed{wildcards.seed}"
        " && {params.record} >> {log} 2>&1 || [ $? -eq 3 ]"
