"""Processes that measure themselves: they are asked for a figure and answer with it."""
