"""RecPO: rewards, objective and trainer."""
