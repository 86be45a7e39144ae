"""A real JupyterHub behind a front that speaks BinderHub's interface: what a peer is, without Docker or Kubernetes.

    with running("physics", git=url) as hub:          # hub.url is the peer's, as for people
        Settings(peers=[{"name": "physics", "url": hub.url, "binder_url": hub.binder_url}])

The hub is JupyterHub from the package index, with its own configurable-http-proxy; `front` is ours, and makes a user and
starts a server for each launch by JupyterHub's REST API, as BinderHub's launcher does.
"""

from tests.servers.hub.hub import NEED, Hub, running

__all__ = ["NEED", "Hub", "running"]
