"""Text columns of items that stay on disk and are read in batches, because there may be gigabytes of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class TextsOnDisk:
    """Text columns of items in an open file; row v belongs to row v of the items.

    file: its name may be deleted while it is open. rows: int64, ascending, the rows of the file that belong to the
    items; None: all.
    """

    file: pa.ipc.RecordBatchFileReader
    rows: np.ndarray | None = None

    @property
    def names(self) -> list[str]:
        """The columns, in their order."""
        return list(self.file.schema.names)

    def take(self, rows: np.ndarray) -> "TextsOnDisk":
        """These rows alone; int64, ascending."""
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows in order, some thousands in memory at a time."""
        start = 0
        for number in range(self.file.num_record_batches):
            batch = self.file.get_batch(number)
            end = start + batch.num_rows
            if self.rows is not None:
                first, last = np.searchsorted(self.rows, [start, end])
                batch = batch.take(pa.array(self.rows[first:last] - start))
            yield batch
            start = end
