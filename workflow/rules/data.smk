rule fetch:
    """Get a dataset's source files and check their sha256."""
    input:
        own=own_files,
        code=code("benchmark.fetch"),
        source=source_code,
    output:
        "results/fetched/{dataset}.json",
    log:
        "results/logs/fetch/{dataset}.log",
    conda:
        "../../environment.yml"
    params:
        settings=dataset_json,
    shell:
        "python -m benchmark.fetch --settings {params.settings:q} --resources resources --out {output} > {log} 2>&1"


rule prepare:
    """Clean, make cases, split in time."""
    input:
        manifest="results/fetched/{dataset}.json",
        code=code("benchmark.prepare"),
        source=source_code,
    output:
        expand(
            "results/data/{{dataset}}/{file}",
            file=[
                "items.parquet",
                "train.parquet",
                "valid.parquet",
                "test.parquet",
                "test_targets.parquet",
                "dataset.json",
            ],
        ),
    log:
        "results/logs/prepare/{dataset}.log",
    benchmark:
        "results/usage/prepare/{dataset}.tsv"
    conda:
        "../../environment.yml"
    params:
        settings=dataset_json,
    shell:
        "python -m benchmark.prepare --dataset {wildcards.dataset} --settings {params.settings:q}"
        " --manifest {input.manifest} --out results/data/{wildcards.dataset} > {log} 2>&1"
