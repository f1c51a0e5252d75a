"""RecPO's headroom: what choosing among several reasonings of a case could gain, and how much is learnable."""
