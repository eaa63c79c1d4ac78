"""The automatic ladder: from random starts to a guide that can be trusted, one stage at a time."""
