"""Training of RecBole's sequential networks, shared by the baselines that use one."""
