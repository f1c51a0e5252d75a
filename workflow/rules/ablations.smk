FOLDER = settings.ablations_folder


wildcard_constraints:
    factor="|".join(map(re.escape, ablations.factors)) or "none",


rule ablations:
    """The ablations alone: tables, plots and claims, with the runs that they need and no others."""
    input:
        plan.ablation_files(),
    localrule: True


rule ablation:
    """One factor: every value against the base."""
    input:
        lambda wildcards: inputs_of(plan.ablation(wildcards.factor)),
    output:
        plan.factor_tables("{factor}"),
    log:
        "results/logs/ablations/{factor}.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["ablation"].runtime,
        mem_mb=RULES["ablation"].mem_mb,
    params:
        record=recorded(lambda wildcards: plan.ablation(wildcards.factor)),
        factors=lambda wildcards: plan.factors_json(wildcards.factor),
        out=subpath(output[0], parent=True),
    message:
        "ablation {wildcards.factor}: table"
    shell:
        "{{ python -m benchmark.output.ablations --results results --factors {params.factors:q} --out {params.out}"
        " && {params.record}; }} > {log} 2>&1"


rule ablation_plot:
    """One factor: metrics, differences from the base, training curves."""
    input:
        lambda wildcards: inputs_of(plan.ablation_plot(wildcards.factor)),
    output:
        plan.factor_plots("{factor}"),
    log:
        "results/logs/ablation_plots/{factor}.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["ablation_plot"].runtime,
        mem_mb=RULES["ablation_plot"].mem_mb,
    params:
        record=recorded(lambda wildcards: plan.ablation_plot(wildcards.factor)),
        factors=lambda wildcards: plan.factors_json(wildcards.factor),
        out=subpath(output[0], parent=True),
    message:
        "ablation {wildcards.factor}: plot"
    shell:
        "{{ python -m benchmark.output.ablation_plots --results results --factors {params.factors:q}"
        " --out {params.out} && {params.record}; }} > {log} 2>&1"


rule claims:
    """What the runs say about each claim."""
    input:
        lambda wildcards: inputs_of(plan.claims()),
    output:
        plan.claims_files(),
    log:
        "results/logs/claims.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["claims"].runtime,
        mem_mb=RULES["claims"].mem_mb,
    params:
        record=recorded(lambda wildcards: plan.claims()),
        factors=plan.factors_json(*ablations.factors),
        out=subpath(output[0], parent=True),
    message:
        "claims"
    shell:
        "{{ python -m benchmark.output.claims --results results --factors {params.factors:q} --out {params.out}"
        " && {params.record}; }} > {log} 2>&1"
