wildcard_constraints:
    factor="|".join(map(re.escape, ablations.factors)) or "none",


rule ablations:
    """Make tables, plots and claims of the ablations, with the runs that they need and no others."""
    input:
        outputs.ablation_files(),
    localrule: True


rule factor_statistics:
    """Compute all statistics of one factor, once."""
    input:
        lambda wildcards: inputs_of(outputs.factor_statistics(wildcards.factor)),
    output:
        outputs.factor_statistics_files("{factor}"),
    log:
        "results/logs/factor_statistics/{factor}.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["factor_statistics"].runtime,
        mem_mb=RULES["factor_statistics"].mem_mb,
    params:
        record=recorded(lambda wildcards: outputs.factor_statistics(wildcards.factor)),
        factors=lambda wildcards: outputs.factors_json(wildcards.factor),
        folder=settings.ablations_folder,
    message:
        "ablation {wildcards.factor}: statistics"
    shell:
        "{{ python -m benchmark.statistics.ablations --results results --factors {params.factors:q}"
        " --ablations {params.folder}"
        " && {params.record}; }} > {log} 2>&1"


rule ablation:
    """One factor: every value against the base."""
    input:
        lambda wildcards: inputs_of(outputs.ablation(wildcards.factor)),
    output:
        outputs.factor_tables("{factor}"),
    log:
        "results/logs/ablations/{factor}.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["ablation"].runtime,
        mem_mb=RULES["ablation"].mem_mb,
    params:
        record=recorded(lambda wildcards: outputs.ablation(wildcards.factor)),
        factors=lambda wildcards: outputs.factors_json(wildcards.factor),
        folder=settings.ablations_folder,
    message:
        "ablation {wildcards.factor}: table"
    shell:
        "{{ python -m benchmark.output.ablations --results results --factors {params.factors:q} --ablations"
        " {params.folder}"
        " && {params.record}; }} > {log} 2>&1"


rule ablation_plot:
    """One factor: metrics, differences from the base, training curves."""
    input:
        lambda wildcards: inputs_of(outputs.ablation_plot(wildcards.factor)),
    output:
        outputs.factor_plots("{factor}"),
    log:
        "results/logs/ablation_plots/{factor}.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["ablation_plot"].runtime,
        mem_mb=RULES["ablation_plot"].mem_mb,
    params:
        record=recorded(lambda wildcards: outputs.ablation_plot(wildcards.factor)),
        factors=lambda wildcards: outputs.factors_json(wildcards.factor),
        folder=settings.ablations_folder,
    message:
        "ablation {wildcards.factor}: plot"
    shell:
        "{{ python -m benchmark.output.ablation_plots --results results --factors {params.factors:q}"
        " --ablations {params.folder}"
        " && {params.record}; }} > {log} 2>&1"


rule claims_statistics:
    """Test and judge each claim."""
    input:
        lambda wildcards: inputs_of(outputs.claims_statistics()),
    output:
        outputs.claims_statistics_files(),
    log:
        "results/logs/claims_statistics.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["claims_statistics"].runtime,
        mem_mb=RULES["claims_statistics"].mem_mb,
    params:
        record=recorded(lambda wildcards: outputs.claims_statistics()),
        factors=outputs.factors_json(*ablations.factors),
        folder=settings.ablations_folder,
    message:
        "claims: statistics"
    shell:
        "{{ python -m benchmark.statistics.claims --results results --factors {params.factors:q} --ablations"
        " {params.folder}"
        " && {params.record}; }} > {log} 2>&1"


rule claims:
    """Write the page of verdicts on the claims."""
    input:
        lambda wildcards: inputs_of(outputs.claims()),
    output:
        outputs.claims_files(),
    log:
        "results/logs/claims.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["claims"].runtime,
        mem_mb=RULES["claims"].mem_mb,
    params:
        record=recorded(lambda wildcards: outputs.claims()),
        folder=settings.ablations_folder,
    message:
        "claims"
    shell:
        "{{ python -m benchmark.output.claims --results results --ablations {params.folder}"
        " && {params.record}; }} > {log} 2>&1"
