"""One fit on many processes: each steps on rows of its own, and all have the same parameters."""
