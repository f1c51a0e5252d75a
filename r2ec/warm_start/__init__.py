"""The start before RecPO: kept states of the frozen LM, maps fitted to them, adapters taught on them."""
