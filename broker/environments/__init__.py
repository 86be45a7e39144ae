"""The builder: turns a commit into a Python environment with `uv`, and leaves the command that serves it.

    python -I broker/environments SPEC.json

Runs beside the agent, as a process of its own: the standard library, and the commands `git` and `uv`. It reads the spec and
unlinks it, and says on standard output what it does, one JSON object a line: {"phase", "message"}. The last is
{"phase": "built", …, "server": {"argv", "env", "cwd"}} or {"phase": "failed", "message": a sentence for the person}.

In the order of a launch: `cache` finds or builds; `fetching` brings the commit; `wishes` reads what its files ask for, by
repo2docker's rules; `installing` has uv make it so and runs `postBuild`; `session` gives each session its own copies and the
command of its server. `programs` runs other programs and talks to the agent.
"""
