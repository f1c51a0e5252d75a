rule table:
    """Means, intervals and paired tests of one dataset; refuses to print what fails a self-check."""
    input:
        lambda wildcards: inputs_of(plan.table(wildcards.dataset)),
    output:
        plan.dataset_tables("{dataset}"),
    log:
        "results/logs/tables/{dataset}.log",
    # As soon as its runs are there, though others go on.
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["table"].runtime,
        mem_mb=RULES["table"].mem_mb,
    params:
        record=recorded(lambda wildcards: plan.table(wildcards.dataset)),
        selection=lambda wildcards: plan.selection(wildcards.dataset),
    message:
        "table of {wildcards.dataset}"
    shell:
        "{{ python -m benchmark.output.tables {params.selection} --only datasets --out results/tables"
        " && {params.record}; }} > {log} 2>&1"


rule tables:
    """One table of all datasets, and what each method costs."""
    input:
        lambda wildcards: inputs_of(plan.tables()),
    output:
        plan.table_files(),
    log:
        "results/logs/tables.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["tables"].runtime,
        mem_mb=RULES["tables"].mem_mb,
    params:
        record=recorded(lambda wildcards: plan.tables()),
        selection=plan.selection(),
    message:
        "table of all datasets"
    shell:
        "{{ python -m benchmark.output.tables {params.selection} --only main --out results/tables"
        " && {params.record}; }} > {log} 2>&1"


rule plots:
    """Metrics with intervals, metrics by history length and popularity, cost against quality."""
    input:
        lambda wildcards: inputs_of(plan.plots(wildcards.dataset)),
    output:
        plan.plot_files("{dataset}"),
    log:
        "results/logs/plots/{dataset}.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["plots"].runtime,
        mem_mb=RULES["plots"].mem_mb,
    params:
        record=recorded(lambda wildcards: plan.plots(wildcards.dataset)),
        selection=lambda wildcards: plan.selection(wildcards.dataset),
    message:
        "plots of {wildcards.dataset}"
    shell:
        "{{ python -m benchmark.output.plots {params.selection} --out results/plots"
        " && {params.record}; }} > {log} 2>&1"


rule against:
    """The reference against each of the other methods."""
    input:
        lambda wildcards: inputs_of(plan.against()),
    output:
        plan.against_files() or [],
    log:
        "results/logs/against.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["against"].runtime,
        mem_mb=RULES["against"].mem_mb,
    params:
        record=recorded(lambda wildcards: plan.against()),
        selection=plan.selection(),
        reference=settings.reference,
    message:
        "{params.reference} against the others"
    shell:
        "{{ python -m benchmark.output.against {params.selection} --reference {params.reference}"
        " --out results/tables"
        " && {params.record}; }} > {log} 2>&1"


rule page:
    """One self-contained page with everything; `snakemake --report` shows it, too."""
    input:
        lambda wildcards: inputs_of(plan.page()),
    output:
        report(
            "results/report/index.html",
            caption="../report/page.rst",
            category="Page",
        ),
    log:
        "results/logs/page.log",
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["page"].runtime,
        mem_mb=RULES["page"].mem_mb,
    params:
        record=recorded(lambda wildcards: plan.page()),
        selection=plan.selection(),
        factors=plan.factors_json(*ablations.factors),
        folder=settings.ablations_folder,
        reference=(
            "" if settings.reference is None else f"--reference {settings.reference}"
        ),
    message:
        "page"
    shell:
        "{{ python -m benchmark.output.page {params.selection} --factors {params.factors:q} --ablations {params.folder}"
        " {params.reference}"
        " --out results/report"
        " && {params.record}; }} > {log} 2>&1"
