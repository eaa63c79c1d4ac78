"""Steps of one batch shape: memory, the graph that updates it, and how it moves from tier to tier. May import all rooms beside it."""
