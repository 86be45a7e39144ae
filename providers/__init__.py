"""Clouds: one file each. Nothing here imports the broker or the federation, and no driver imports another."""
