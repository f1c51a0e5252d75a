"""Make up files of any size in the exact raw form of Amazon Reviews 2023: `python -m benchmark.speed.raw_amazon`.

    python -m benchmark.speed.raw_amazon FOLDER

The folder can be the `mirror` of the source `amazon_2023`. Popular items and busy users are as in real logs, and most
interactions are of the last years. The oddities of the real files occur: missing and overlong titles, prices that are
no numbers, HTML, characters outside ASCII, empty lists, items without interactions.
"""

import base64
import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from tqdm import tqdm

from benchmark.errors import InputError, command, command_line
from benchmark.storage.io import atomic

WORDS, SENTENCES = 20_000, 30_000
BODIES = 20_000  # lines that differ in more than the id; so far apart that gzip doesn't see the repetition
FIRST, LAST = 946_684_800_000, 1_695_000_000_000  # ms: 2000-01-01, 2023-09-18
BLOCK = 2**17  # interactions written at once


def made_up_id(kind: str, number: int, length: int) -> str:
    """A capital id of letters and digits, as the source has them.

    >>> made_up_id("AE", 7, 28), len(made_up_id("B0", 7, 10))
    ('AEQLMLVDCB2Q3W7ZSVYR7TA266SQ', 10)
    """
    digest = hashlib.sha256(f"{kind}{number}".encode()).digest()
    return kind + base64.b32encode(digest).decode()[: length - len(kind)]


class Writer:
    """Makes up items. All of it comes from the seed."""

    def __init__(self, seed: int) -> None:
        self.generator = generator = np.random.default_rng(seed)
        self.bodies: list[str] = []
        letters = np.array(list("eeeaaiioourrttnnssllddhcmpgbvkfwyzjqx"))
        lengths = generator.integers(2, 11, WORDS)
        self.words = ["".join(letters[generator.integers(0, len(letters), n)]) for n in lengths]
        # Frequent words are few; a sentence rarely comes twice within gzip's window, so files pack as real text does.
        picks = np.minimum(generator.zipf(1.2, (SENTENCES, 16)), WORDS) - 1
        ends = generator.integers(6, 17, SENTENCES)
        self.sentences = [" ".join(self.words[w] for w in row[:n]) + "." for row, n in zip(picks, ends, strict=True)]

    def some(self, most: int) -> list[str]:
        """Up to `most` sentences; none of them for two items of five."""
        count = max(0, int(self.generator.integers(-most * 2 // 3, most + 1)))
        return [self.sentences[i] for i in self.generator.integers(0, SENTENCES, count)]

    def line(self, number: int) -> str:
        """Line `number` of the metadata, from 0 on."""
        if number < BODIES:
            self.bodies.append(json.dumps(self.item("B0{ID}")))
        return self.bodies[number % BODIES].replace("B0{ID}", made_up_id("B0", number, 10))

    def item(self, item_id: str) -> dict:
        """One item, with the columns of the source in their order."""
        generator = self.generator
        length = int(generator.integers(3, 21)) if generator.random() < 0.93 else int(generator.integers(21, 40))
        title: str | None = " ".join(self.words[w] for w in generator.integers(0, WORDS, length)).title()
        chance = generator.random()
        if chance < 0.01:
            title = None if chance < 0.005 else ""
        elif chance < 0.05:
            title = f"{title} &amp; <b>Caf\u00e9</b> \U0001f3b8"
        price = [None, None, round(float(generator.gamma(2, 15)), 2), "from 12.99", "\u2014"][
            int(generator.choice(5, p=[0.2, 0.2, 0.55, 0.03, 0.02]))
        ]
        code = f"https://m.media-amazon.com/images/I/{item_id}"
        images = [
            {
                "thumb": f"{code}{k}._SS40_.jpg",
                "large": f"{code}{k}.jpg",
                "variant": f"PT{k:02d}",
                "hi_res": f"{code}{k}._SL1500_.jpg",
            }
            for k in range(int(generator.integers(1, 8)))
        ]
        return {
            "main_category": "Video Games",
            "title": title,
            "average_rating": round(float(generator.uniform(2.5, 5)), 1),
            "rating_number": int(generator.zipf(1.4)) % 100_000,
            "features": self.some(14),
            "description": self.some(24),
            "price": price,
            "images": images,
            "videos": [],
            "store": self.words[int(generator.integers(0, WORDS))].title(),
            "categories": ["Video Games", "PC", "Games"][: int(generator.integers(0, 4))],
            "details": {"Release date": "October 1, 2022", "Item Weight": f"{generator.uniform(1, 40):.1f} ounces"},
            "parent_asin": item_id,
            "bought_together": None,
        }


def write_items(path: Path, size: int, seed: int) -> int:
    """Write metadata until the packed file has `size` bytes; returns the number of items."""
    writer, n = Writer(seed), 0
    with (
        atomic(path) as temporary,
        open(temporary, "wb") as packed,
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as file,
        tqdm(total=size, desc="made-up items", unit="B", unit_scale=True, mininterval=5, delay=5, leave=False) as bar,
    ):
        while packed.tell() < size:
            block = [writer.line(n + i) for i in range(500)]
            file.write(("\n".join(block) + "\n").encode())
            n += len(block)
            bar.update(packed.tell() - bar.n)
    return n


def write_interactions(path: Path, n: int, users: int, items: int, seed: int) -> None:
    """Write `n` interactions of at most `users` users with at most `items` items, sorted by user as in the source."""
    generator = np.random.default_rng(seed)
    user = np.sort((users * generator.random(n) ** 1.5).astype(np.int64))
    user_names = pa.array([made_up_id("AE", number, 28) for number in range(users)])
    item_names = pa.array([made_up_id("B0", number, 10) for number in range(items)])
    schema = pa.schema(
        [("user_id", "string"), ("parent_asin", "string"), ("rating", "float64"), ("timestamp", "int64")]
    )
    options = pyarrow.csv.WriteOptions(quoting_style="none", include_header=False)  # it would be quoted
    with (
        atomic(path) as temporary,
        pa.output_stream(temporary, compression="gzip") as file,
        pyarrow.csv.CSVWriter(file, schema, write_options=options) as out,
        tqdm(total=n, desc="made-up interactions", unit="row", mininterval=5, delay=5, leave=False) as bar,
    ):
        file.write(b"user_id,parent_asin,rating,timestamp\n")
        for start in range(0, n, BLOCK):
            part = user[start : start + BLOCK]
            popular = (items * generator.random(len(part)) ** 3).astype(np.int64)
            times = LAST - ((LAST - FIRST) * generator.random(len(part)) ** 2.5).astype(np.int64)
            ratings = generator.choice(5, len(part), p=[0.1, 0.05, 0.08, 0.14, 0.63]) + 1.0
            columns = [user_names.take(pa.array(part)), item_names.take(pa.array(popular)), ratings, times]
            out.write_table(pa.table([pa.array(column) for column in columns], schema=schema))
            bar.update(len(part))


def write_category(
    folder: Path, category: str, core: str, size: int, interactions_per_item: float = 5
) -> tuple[int, int]:
    """Both files of one category, at their places in `folder`. Returns the number of items and of interactions.

    size: bytes of the packed metadata file, which holds a tenth more items than have interactions.
    """
    items = write_items(folder / "raw" / "meta_categories" / f"meta_{category}.jsonl.gz", size, seed=0)
    n = round(items * interactions_per_item)
    path = folder / "benchmark" / core / "rating_only" / f"{category}.csv.gz"
    write_interactions(path, n, users=max(1, n // 3), items=max(1, items * 10 // 11), seed=1)
    return items, n


@command
def main() -> None:
    parser = command_line("benchmark.speed.raw_amazon", __doc__)
    parser.add_argument("folder", type=Path, help="the folder to write, a mirror for the source amazon_2023")
    parser.add_argument("--category", default="Video_Games", help="the category that the files are named after")
    parser.add_argument("--core", default="0core", choices=["0core", "5core"], help="where the interactions are put")
    parser.add_argument("--gigabytes", type=float, default=0.1, help="size of the packed metadata file (10^9 bytes)")
    args = parser.parse_args()
    if args.gigabytes <= 0:
        raise InputError(f"--gigabytes {args.gigabytes}: give a size above 0")
    items, n = write_category(args.folder, args.category, args.core, round(args.gigabytes * 1e9))
    print(f"{args.folder}: {items:,} made-up items, {n:,} interactions")


if __name__ == "__main__":
    main()
