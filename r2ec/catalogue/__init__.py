"""Catalogues that are too large for one product: tables on disk, nearest neighbours, sampled softmax."""
