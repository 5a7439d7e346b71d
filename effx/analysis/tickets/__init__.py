"""Finished searches for super tickets, compared over tasks and seeds (Liang et al. 2021)."""
