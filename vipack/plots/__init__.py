"""Plots of fits: matplotlib Axes in, Axes out; nothing is ever shown or saved here."""
