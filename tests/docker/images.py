"""What the images of these tests are made of; `engine.build` makes each once a clone."""

from __future__ import annotations

from tests.servers.docker import Engine

ENTRY = r"""RUN printf '#!/bin/bash -l\nexec "$@"\n' > /entry && chmod +x /entry"""
PATH = "RUN echo 'export PATH=/opt/venv/bin:$PATH' > /etc/profile.d/zz-venv.sh"
APP = """\
import http.server, os, sys
class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == '/fill':
            hog = [bytes(range(256)) * 4096 for _ in range(4096)]
        body = ('hello from ' + sys.argv[1]).encode()
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers()
        self.wfile.write(body)
print('the app starts', flush=True)
http.server.ThreadingHTTPServer(('0.0.0.0', int(sys.argv[1])), App).serve_forever()
"""


def jupyter(engine: Engine) -> str:
    """As repo2docker leaves one: Jupyter on the path of a login shell, an entry point that is one, a user of its own."""
    return with_jupyter(engine, "jupyterlab", name="lab")


def old_notebook(engine: Engine) -> str:
    """Of the years before jupyter_server."""
    return with_jupyter(engine, "'notebook<6.5' 'setuptools<80' 'traitlets<5.10' 'jupyter-client<8'", name="notebook")


def with_jupyter(engine: Engine, packages: str, *, name: str) -> str:
    return engine.build(
        f"""\
FROM {engine.base_image}
RUN useradd --create-home --uid 1000 jovyan
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --quiet --no-compile {packages}
{PATH}
{ENTRY}
USER jovyan
WORKDIR /home/jovyan
ENTRYPOINT ["/entry"]
CMD ["jupyter", "notebook", "--ip", "0.0.0.0"]
""",
        name=name,
    )


def app(engine: Engine) -> str:
    """A plain web app: a command of its own, on a port of its own choice, as root."""
    text = APP.replace("\n", "\\n\\\n")
    return engine.build(
        f'FROM {engine.base_image}\nRUN printf "{text}" > /app.py\nEXPOSE 3000\nCMD ["python3", "/app.py", "3000"]\n',
        name="app",
    )
