"""How programs run: their arguments, parameters, random state, loops, and what Pyro refuses."""
