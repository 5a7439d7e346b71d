"""Choosing what to remove from each layer under a budget of measured cost."""
