# What JupyterHub reads. Its servers run as whoever runs the tests, each in a folder of its own, and are opened by the token
# that their launch was given, as BinderHub's are.
import os
import sys
from pathlib import Path

from jupyterhub.spawner import SimpleLocalProcessSpawner
from traitlets import default


class BinderSpawner(SimpleLocalProcessSpawner):
    """As BinderHub's: a notebook server with the launch's token, which asks the hub nothing."""

    @default("cmd")
    def _cmd(self):
        return [str(Path(sys.executable).with_name("jupyter-server"))]

    def get_args(self):
        return [
            f"--ServerApp.token={self.user_options['token']}",
            f"--ServerApp.base_url={self.server.base_url}",
            f"--ServerApp.port={self.port}",
            "--ServerApp.ip=127.0.0.1",
            "--ServerApp.allow_root=True",
            "--ServerApp.open_browser=False",
            "--ServerApp.allow_origin=*",
            *self.args,
        ]

    def get_env(self):
        env = super().get_env()
        told = {f"BINDER_{name.upper()}": str(value) for name, value in self.user_options.items() if name != "token"}
        return {**env, **told, "JUPYTER_RUNTIME_DIR": f"{env['HOME']}/.runtime", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


c = get_config()  # noqa: F821
folder, address, port = os.environ["TEST_HUB_FOLDER"], os.environ["TEST_HUB_URL"], int(os.environ["TEST_HUB_API_PORT"])
c.JupyterHub.bind_url = address
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{port}"
c.JupyterHub.db_url = f"sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = f"{folder}/cookie"
c.JupyterHub.spawner_class = BinderSpawner
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.allow_all = True
c.JupyterHub.cleanup_servers = True
c.JupyterHub.log_level = "INFO"
c.ConfigurableHTTPProxy.command = [os.environ["TEST_HUB_PROXY"]]
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{os.environ['TEST_HUB_PROXY_PORT']}"
c.ConfigurableHTTPProxy.pid_file = f"{folder}/proxy.pid"
c.BinderSpawner.home_dir_template = f"{folder}/homes/{{username}}"
c.BinderSpawner.start_timeout = c.BinderSpawner.http_timeout = 60
c.JupyterHub.services = [
    {"name": "binder", "url": os.environ["TEST_HUB_FRONT"], "api_token": os.environ["TEST_HUB_TOKEN"]}
]
c.JupyterHub.load_roles = [
    {
        "name": "binder",
        "services": ["binder"],
        "scopes": ["admin:users", "admin:servers", "list:users", "read:hub"],
    }
]
