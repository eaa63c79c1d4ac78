"""Named data sets, each with its source and licence."""
