rule run:
    """Fit one method on one dataset with one seed and rank the test cases."""
    input:
        data="results/data/{dataset}/dataset.json",
        tuned=tuned,
        fitted=fitted,
        backbone=embedded_backbone,
        code=code("benchmark.run"),
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
    params:
        module=lambda wildcards: settings.module_of(base(wildcards.method)),
        params=lambda wildcards: json.dumps(
            entry(wildcards.method).params, sort_keys=True
        ),
        grid=lambda wildcards: json.dumps(entry(wildcards.method).grid, sort_keys=True),
        tuned=lambda wildcards, input: f"--tuned {input.tuned}" if input.tuned else "",
        variant=variant,
        work=lambda wildcards: fit_of(wildcards.method),
    shell:
        "python -m benchmark.run --data results/data/{wildcards.dataset} --method {wildcards.method}"
        " --module {params.module} --seed {wildcards.seed} --params {params.params:q} --grid {params.grid:q} {params.tuned}"
        " {params.variant}"
        " --work results/work/{wildcards.dataset}/{params.work}/seed{wildcards.seed}"
        " --out results/runs/{wildcards.dataset}/{wildcards.method}/seed{wildcards.seed} > {log} 2>&1"
