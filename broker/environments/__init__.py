"""The builder: turns a commit into a Python environment or an image, and leaves the command that serves it.

    python -I broker/environments SPEC.json

Runs beside the agent, as a process of its own: the standard library, and the commands `git` and `uv`; for containers also
the packages `docker` and `jupyter-repo2docker`. It reads the spec and unlinks it, and says on standard output what it does,
one JSON object a line: {"phase", "message"}. The last is {"phase": "built", …, "server": {"argv", "env", "cwd"}}, with
"image" where it made one, or {"phase": "failed", "message": a sentence for the person}.

In the order of a launch: `cache` finds or builds; `fetching` brings the commit, or has `downloading` bring a list of files
and `unpacking` open the one archive, on a served hub by the one way that `outward` leaves;
`wishes` reads what its files ask for, by repo2docker's rules; `installing` has uv make it
so and runs `postBuild`; `session` gives each session its own copies and the command of its server. `programs` runs other
programs and talks to the agent. `keeping`, for the command `anybinder images`, lists and removes what is kept.

With containers: `images` finds the image here or, by `registry`, elsewhere, or has `building` make it; `buildpack` is repo2docker
with our own pack, in a process of its own, and `transcript` turns what that says into lines and a sentence. `container` says how
the image is served and `serving` does it, in the `network` that fences it in. `engines` asks Docker or Podman for all of them.
"""
