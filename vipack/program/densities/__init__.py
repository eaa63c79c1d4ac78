"""Log densities of traces: enumeration, masks, values that are substituted, and what is wrong with data."""
