# A priority above that of any run.
FIRST = 100_000


rule fetch:
    """Get a dataset's source files and check their sha256."""
    input:
        lambda wildcards: inputs_of(plan.fetch(wildcards.dataset)),
    output:
        "results/fetched/{dataset}.json",
    log:
        "results/logs/fetch/{dataset}.log",
    # It is short, and shows what is wrong with a source before hours of fitting.
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["fetch"].runtime,
        mem_mb=RULES["fetch"].mem_mb,
    params:
        settings=dataset_json,
        record=recorded(lambda wildcards: plan.fetch(wildcards.dataset)),
    message:
        "fetch {wildcards.dataset}"
    shell:
        "{{ python -m benchmark.data.fetch --settings {params.settings:q} --resources resources --out {output}"
        " && {params.record}; }} > {log} 2>&1"


rule prepare:
    """Clean, make cases, split in time."""
    input:
        lambda wildcards: inputs_of(plan.prepare(wildcards.dataset)),
    output:
        data_files("{dataset}"),
    log:
        "results/logs/prepare/{dataset}.log",
    benchmark:
        "results/usage/prepare/{dataset}.tsv"
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["prepare"].runtime,
        mem_mb=RULES["prepare"].mem_mb,
    params:
        settings=dataset_json,
        record=recorded(lambda wildcards: plan.prepare(wildcards.dataset)),
    message:
        "prepare {wildcards.dataset}"
    shell:
        "{{ python -m benchmark.data.prepare --dataset {wildcards.dataset} --settings {params.settings:q}"
        " --manifest results/fetched/{wildcards.dataset}.json --out results/data/{wildcards.dataset}"
        " && {params.record}; }} > {log} 2>&1"
        # Warnings are printed on the screen, too.
        " && {{ grep -F {wildcards.dataset:q}': warning: ' {log} >&2 || true; }}"


rule fetch_backbone:
    """Fetch and convert the embedded backbone, once. A folder that exists is taken, and checked when it is loaded."""
    output:
        MANIFEST,
    log:
        "results/logs/fetch_backbone.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["fetch_backbone"].runtime,
        mem_mb=RULES["fetch_backbone"].mem_mb,
    params:
        folder=subpath(output[0], parent=True),
    message:
        "fetch the embedded LM"
    # Snakemake has just removed the manifest and made the folder, where it was missing; the command takes only a whole
    # folder or none.
    shell:
        "rm -rf {params.folder:q} && python -m lm.embedded --out {params.folder:q} > {log} 2>&1"


rule fetch_encoder:
    """Fetch the sentence encoder, once: a folder that is there is taken, and checked when it is loaded."""
    output:
        ENCODER_SUMS,
    log:
        "results/logs/fetch_encoder.log",
    priority: FIRST
    conda:
        "../../environment.yml"
    resources:
        runtime=RULES["fetch_encoder"].runtime,
        mem_mb=RULES["fetch_encoder"].mem_mb,
    params:
        folder=subpath(output[0], parent=True),
    message:
        "fetch the sentence encoder"
    shell:
        "rm -rf {params.folder:q} && python -m baselines._writers.sentences {params.folder:q} > {log} 2>&1"
