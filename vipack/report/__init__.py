"""Pages that stand alone: a fit, a comparison, and whatever else is shown by the same templates."""
