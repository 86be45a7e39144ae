"""Launches at peers: which peer, one open try at a time, what its stream says, and the session there.

`choosing` says who can take a launch and who is asked first, `rows` keeps the tries, `streams` reads what peers say beside the
requests and hands it to `hearing`, `sessions` looks at what runs there and ends it. The steps that call them are in
`launches/forwarding.py`, where nothing ever waits for a stream.
"""
