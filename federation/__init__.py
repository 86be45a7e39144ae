"""Hubs talking to hubs. Imports the providers' vocabulary and nothing of the broker."""
