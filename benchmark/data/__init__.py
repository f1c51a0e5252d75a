"""From a dataset's files to cases: fetching, checking, preparing, and the protocol of histories and splits."""
