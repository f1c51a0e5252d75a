"""One file per source. A source module has

    Options                     a pydantic model of the source's own settings in the config
    inputs(options)             the user's own files that it reads; none for a download
    fetch(options, folder)      put what is needed into `folder`, checksums verified; returns the files
    load(options, files)        -> Raw: interactions and items as the source has them

`files` is a list of paths; what they are is the source's own business. Nothing here filters, sorts or splits: that is
`benchmark/protocol.py`, the same for every source.
"""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Raw:
    """What a source gives.

    interactions: user_id (str), item_id (str), timestamp (int64, Unix seconds), rating (float32, NaN: none given)
    items: item_id (str), title (str, may be missing), any further text columns (str); one row per item
    """

    interactions: pd.DataFrame
    items: pd.DataFrame
