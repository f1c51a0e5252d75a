TABLES = f"results/{settings.ablations_folder}"
FIGURES = f"results/plots/{settings.ablations_folder}"


wildcard_constraints:
    factor="|".join(map(re.escape, ablations.factors)) or "none",


rule ablations:
    """The ablations alone: tables, plots and claims, with the runs that they need and no others."""
    input:
        ablation_outputs,
    localrule: True


rule ablation:
    """One factor: every value against the base."""
    input:
        rankings=lambda wildcards: ablation_runs("rankings.parquet", wildcards.factor),
        records=lambda wildcards: ablation_runs("run.json", wildcards.factor),
        data=lambda wildcards: data_of_factors(wildcards.factor),
        code=code("benchmark.ablations"),
    output:
        expand(
            f"{TABLES}/{{{{factor}}}}.{{ending}}",
            ending=["csv", "md", "tex", "tests.csv"],
        ),
    log:
        "results/logs/ablations/{factor}.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["ablation"].runtime,
        mem_mb=RULES["ablation"].mem_mb,
    params:
        factors=lambda wildcards: factors_json(wildcards.factor),
        out=subpath(output[0], parent=True),
    message:
        "ablation {wildcards.factor}: table"
    shell:
        "python -m benchmark.ablations --results results --factors {params.factors:q} --out {params.out} > {log} 2>&1"


rule ablation_plot:
    """One factor: metrics, differences from the base, training curves."""
    input:
        rankings=lambda wildcards: ablation_runs("rankings.parquet", wildcards.factor),
        records=lambda wildcards: ablation_runs("run.json", wildcards.factor),
        data=lambda wildcards: data_of_factors(wildcards.factor),
        code=code("benchmark.ablation_plots"),
    output:
        f"{FIGURES}/{{factor}}.png",
        f"{FIGURES}/{{factor}}.pdf",
    log:
        "results/logs/ablation_plots/{factor}.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["ablation_plot"].runtime,
        mem_mb=RULES["ablation_plot"].mem_mb,
    params:
        factors=lambda wildcards: factors_json(wildcards.factor),
        out=subpath(output[0], parent=True),
    message:
        "ablation {wildcards.factor}: plot"
    shell:
        "python -m benchmark.ablation_plots --results results --factors {params.factors:q}"
        " --out {params.out} > {log} 2>&1"


rule claims:
    """What the runs say about each claim."""
    input:
        rankings=ablation_runs("rankings.parquet", *ablations.factors),
        records=ablation_runs("run.json", *ablations.factors),
        data=data_of_factors(*ablations.factors),
        code=code("benchmark.claims"),
    output:
        f"{TABLES}/claims.csv",
        f"{TABLES}/claims.md",
    log:
        "results/logs/claims.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["claims"].runtime,
        mem_mb=RULES["claims"].mem_mb,
    params:
        factors=factors_json(*ablations.factors),
        out=subpath(output[0], parent=True),
    message:
        "claims"
    shell:
        "python -m benchmark.claims --results results --factors {params.factors:q} --out {params.out} > {log} 2>&1"
