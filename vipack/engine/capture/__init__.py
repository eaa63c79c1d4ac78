"""From a Pyro program to a graph: tracing, and what a graph takes for granted. May import `guards` and `graph`."""
