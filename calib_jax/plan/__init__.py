"""Plans of runs: what programs take on hardware that need not be there."""
