rule run:
    """Fit one method on one dataset with one seed and rank the test cases."""
    input:
        data="results/data/{dataset}/dataset.json",
        tuned=tuned,
        fitted=fitted,
        backbone=embedded_backbone,
        models=own_models,
        code=code("benchmark.run", "benchmark.launch"),
        method=method_code,
    output:
        "results/runs/{dataset}/{method}/seed{seed}/rankings.parquet",
        "results/runs/{dataset}/{method}/seed{seed}/run.json",
    log:
        "results/logs/runs/{dataset}.{method}.seed{seed}.log",
    benchmark:
        "results/usage/runs/{dataset}.{method}.seed{seed}.tsv"
    priority: urgency
    conda:
        "../../environment.yml"
    threads: lambda wildcards: entry(wildcards.method).threads
    resources:
        gpu=lambda wildcards: entry(wildcards.method).gpus,
        # For Slurm: a job is one task, however many GPUs it has.
        tasks_per_gpu=0,
        # A second attempt gets more.
        runtime=lambda wildcards, attempt: estimated(wildcards).runtime * attempt,
        mem_mb=lambda wildcards, attempt: estimated(wildcards).mem_mb * attempt,
        gpu_mem_mb=lambda wildcards: estimated(wildcards).gpu_mem_mb,
    params:
        module=lambda wildcards: settings.module_of(base(wildcards.method)),
        params=lambda wildcards: json.dumps(
            entry(wildcards.method).params, sort_keys=True
        ),
        grid=lambda wildcards: json.dumps(entry(wildcards.method).grid, sort_keys=True),
        tuned=lambda wildcards, input: f"--tuned {input.tuned}" if input.tuned else "",
        variant=variant,
        work=lambda wildcards: fit_of(wildcards.method),
        processes=lambda wildcards: entry(wildcards.method).process_count(),
    message:
        "{wildcards.method} on {wildcards.dataset}, seed {wildcards.seed}"
    # What is launched sees the GPUs that it got, and no other.
    shell:
        "python -m benchmark.launch --gpus {resources.gpu} --processes {params.processes}"
        " benchmark.run --data results/data/{wildcards.dataset} --method {wildcards.method}"
        " --module {params.module} --seed {wildcards.seed} --params {params.params:q} --grid {params.grid:q} {params.tuned}"
        " {params.variant}"
        " --work results/work/{wildcards.dataset}/{params.work}/seed{wildcards.seed}"
        " --out results/runs/{wildcards.dataset}/{wildcards.method}/seed{wildcards.seed} > {log} 2>&1"
