rule statistics:
    """Compute all statistics of one dataset, once; fail where runs or numbers fail their checks."""
    input:
        lambda wildcards: inputs_of(outputs.statistics(wildcards.dataset)),
    output:
        outputs.dataset_statistics_files("{dataset}"),
    log:
        "results/logs/statistics/{dataset}.log",
    # They are made as soon as the dataset's runs are done, while other runs go on.
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["statistics"].runtime,
        mem_mb=RULES["statistics"].mem_mb,
    params:
        record=recorded(lambda wildcards: outputs.statistics(wildcards.dataset)),
        selection=lambda wildcards: outputs.selection(wildcards.dataset),
    message:
        "statistics of {wildcards.dataset}"
    shell:
        "{{ python -m benchmark.statistics.datasets {params.selection} --out results/statistics"
        " && {params.record}; }} > {log} 2>&1"


rule overall_statistics:
    """Statistics of all datasets together."""
    input:
        lambda wildcards: inputs_of(outputs.overall_statistics()),
    output:
        outputs.overall_statistics_files() or [],
    log:
        "results/logs/overall_statistics.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["overall_statistics"].runtime,
        mem_mb=RULES["overall_statistics"].mem_mb,
    params:
        record=recorded(lambda wildcards: outputs.overall_statistics()),
        selection=outputs.selection(),
    message:
        "statistics of all datasets"
    shell:
        "{{ python -m benchmark.statistics.overall {params.selection} --out results/statistics"
        " && {params.record}; }} > {log} 2>&1"


rule against_statistics:
    """Tests of the reference against each of the other methods."""
    input:
        lambda wildcards: inputs_of(outputs.against_statistics()),
    output:
        outputs.against_statistics_files() or [],
    log:
        "results/logs/against_statistics.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["against_statistics"].runtime,
        mem_mb=RULES["against_statistics"].mem_mb,
    params:
        record=recorded(lambda wildcards: outputs.against_statistics()),
        selection=outputs.selection(),
        reference=settings.reference,
    message:
        "statistics of {params.reference} against the others"
    shell:
        "{{ python -m benchmark.statistics.against {params.selection} --reference {params.reference} --out"
        " results/statistics"
        " && {params.record}; }} > {log} 2>&1"


rule table:
    """The table of one dataset."""
    input:
        lambda wildcards: inputs_of(outputs.table(wildcards.dataset)),
    output:
        outputs.dataset_tables("{dataset}"),
    log:
        "results/logs/tables/{dataset}.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["table"].runtime,
        mem_mb=RULES["table"].mem_mb,
    params:
        record=recorded(lambda wildcards: outputs.table(wildcards.dataset)),
        shown=lambda wildcards: outputs.shown(wildcards.dataset),
    message:
        "table of {wildcards.dataset}"
    shell:
        "{{ python -m benchmark.output.tables {params.shown} --only datasets --out results/tables"
        " && {params.record}; }} > {log} 2>&1"


rule tables:
    """One table of all datasets, and what each method costs."""
    input:
        lambda wildcards: inputs_of(outputs.tables()),
    output:
        outputs.table_files(),
    log:
        "results/logs/tables.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["tables"].runtime,
        mem_mb=RULES["tables"].mem_mb,
    params:
        record=recorded(lambda wildcards: outputs.tables()),
        shown=outputs.shown(),
    message:
        "table of all datasets"
    shell:
        "{{ python -m benchmark.output.tables {params.shown} --only main --out results/tables"
        " && {params.record}; }} > {log} 2>&1"


rule plots:
    """Metrics with intervals, metrics by history length and popularity, cost against quality."""
    input:
        lambda wildcards: inputs_of(outputs.plots(wildcards.dataset)),
    output:
        outputs.plot_files("{dataset}"),
    log:
        "results/logs/plots/{dataset}.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["plots"].runtime,
        mem_mb=RULES["plots"].mem_mb,
    params:
        record=recorded(lambda wildcards: outputs.plots(wildcards.dataset)),
        shown=lambda wildcards: outputs.shown(wildcards.dataset),
    message:
        "plots of {wildcards.dataset}"
    shell:
        "{{ python -m benchmark.output.plots {params.shown} --out results/plots"
        " && {params.record}; }} > {log} 2>&1"


rule against:
    """The reference against each of the other methods."""
    input:
        lambda wildcards: inputs_of(outputs.against()),
    output:
        outputs.against_files() or [],
    log:
        "results/logs/against.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["against"].runtime,
        mem_mb=RULES["against"].mem_mb,
    params:
        record=recorded(lambda wildcards: outputs.against()),
        shown=outputs.shown(),
        reference=settings.reference,
    message:
        "{params.reference} against the others"
    shell:
        "{{ python -m benchmark.output.against {params.shown} --out results/tables"
        " && {params.record}; }} > {log} 2>&1"


rule thinking:
    """Quality and cost of a case by what is computed before a recommendation."""
    input:
        lambda wildcards: inputs_of(outputs.thinking_job()),
    output:
        outputs.thinking_files() or [],
    log:
        "results/logs/thinking.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["thinking"].runtime,
        mem_mb=RULES["thinking"].mem_mb,
    params:
        record=recorded(lambda wildcards: outputs.thinking_job()),
        selection=outputs.thinking_selection(),
    message:
        "thinking: nothing, latent or written"
    shell:
        "{{ python -m benchmark.output.thinking {params.selection} --out results/tables"
        " && {params.record}; }} > {log} 2>&1"


rule page:
    """One self-contained page with everything; `snakemake --report` shows it, too."""
    input:
        lambda wildcards: inputs_of(outputs.page()),
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
        record=recorded(lambda wildcards: outputs.page()),
        selection=outputs.selection(),
        note=outputs.note(),
        thinking=outputs.thinking_on_page(),
        factors=outputs.factors_json(*ablations.factors),
        folder=settings.ablations_folder,
        reference=(
            "" if settings.reference is None else f"--reference {settings.reference}"
        ),
    message:
        "page"
    shell:
        "{{ python -m benchmark.output.page {params.selection}{params.note}{params.thinking}"
        " --factors {params.factors:q}"
        " --ablations {params.folder}"
        " {params.reference} --out results/report"
        " && {params.record}; }} > {log} 2>&1"
