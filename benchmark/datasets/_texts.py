"""Text columns of items that stay on disk, because there may be gigabytes of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class TextsOnDisk:
    """Row v belongs to row v of the items.

    file: the columns, open, so that it may have been deleted already. rows: int64, ascending, those of its rows that
    are meant; None: all.
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
