"""What Argosy costs: `make bench`. Ratios or CPU time in one run, because the machines are shared and noisy."""
