"""RecPO's headroom: what choosing among several reasonings of a case could gain, and how much of that can be learned."""
