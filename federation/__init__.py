"""Hubs talking to hubs. Imports the providers' vocabulary and nothing of the broker.

`peers` says what a peer is, `binderhub` asks one, `health` says how it stands and `routing` which is asked first; the last
two are pure. What becomes of their answers is for the broker to say.
"""
