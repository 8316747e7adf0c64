"""Methods beside each other over several seeds: Table 2, its intervals, the frontier, the page."""
