rule tables:
    """Means, intervals and paired tests; refuses to print what fails a self-check."""
    input:
        rankings=all_runs("rankings.parquet"),
        records=all_runs("run.json"),
        data=expand("results/data/{dataset}/dataset.json", dataset=settings.datasets),
        code=code("benchmark.tables"),
    output:
        expand("results/tables/main.{ending}", ending=["csv", "md", "tex", "txt"]),
        expand("results/tables/costs.{ending}", ending=["csv", "md"]),
        expand(
            "results/tables/{dataset}.{ending}",
            dataset=settings.datasets,
            ending=["csv", "md", "tex", "tests.csv"],
        ),
    log:
        "results/logs/tables.log",
    # As soon as their runs are there, though ablations go on.
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["tables"].runtime,
        mem_mb=RULES["tables"].mem_mb,
    params:
        selection=selection,
    message:
        "tables"
    shell:
        "python -m benchmark.tables {params.selection} --out results/tables > {log} 2>&1"


rule plots:
    """Metrics with intervals, metrics by history length and popularity, cost against quality."""
    input:
        rankings=all_runs("rankings.parquet"),
        records=all_runs("run.json"),
        data=expand("results/data/{dataset}/dataset.json", dataset=settings.datasets),
        code=code("benchmark.plots"),
    output:
        expand(
            "results/plots/{dataset}.{name}.{ending}",
            dataset=settings.datasets,
            name=["metrics", "slices", "cost"],
            ending=["png", "pdf"],
        ),
    log:
        "results/logs/plots.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["plots"].runtime,
        mem_mb=RULES["plots"].mem_mb,
    params:
        selection=selection,
    message:
        "plots"
    shell:
        "python -m benchmark.plots {params.selection} --out results/plots > {log} 2>&1"


rule against:
    """The reference against each of the other methods."""
    input:
        rankings=all_runs("rankings.parquet"),
        records=all_runs("run.json"),
        data=expand("results/data/{dataset}/dataset.json", dataset=settings.datasets),
        code=code("benchmark.against"),
    output:
        expand("results/tables/against.{ending}", ending=["csv", "md"]),
        expand("results/plots/against.{ending}", ending=["png", "pdf"]),
    log:
        "results/logs/against.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["against"].runtime,
        mem_mb=RULES["against"].mem_mb,
    params:
        selection=selection,
        reference=settings.reference,
    message:
        "{params.reference} against the others"
    shell:
        "python -m benchmark.against {params.selection} --reference {params.reference}"
        " --out results/tables > {log} 2>&1"


rule page:
    """One self-contained page with everything."""
    input:
        "results/tables/main.csv",
        expand(
            "results/plots/{dataset}.{name}.png",
            dataset=settings.datasets,
            name=["metrics", "slices", "cost"],
        ),
        against=against_outputs,
        ablations=ablation_outputs,
        code=code("benchmark.report.__main__"),
        templates=[
            str(ROOT / f"benchmark/report/{name}.html.jinja")
            for name in ("page", "ablations")
        ],
    output:
        "results/report/index.html",
    log:
        "results/logs/page.log",
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["page"].runtime,
        mem_mb=RULES["page"].mem_mb,
    params:
        selection=selection,
        factors=factors_json(*ablations.factors),
        folder=settings.ablations_folder,
        reference=(
            "" if settings.reference is None else f"--reference {settings.reference}"
        ),
    message:
        "page"
    shell:
        "python -m benchmark.report {params.selection} --factors {params.factors:q} --ablations {params.folder}"
        " {params.reference}"
        " --out results/report > {log} 2>&1"
