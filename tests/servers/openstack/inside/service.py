"""One of OpenStack's services. Runs in OpenStack's own virtual environment: `python service.py NAME FOLDER PORT`.

Under FOLDER are the configuration files that the bed has written. The service makes its tables where FOLDER/NAME.tables is
not there yet, and answers on PORT of this computer. Nova is four services, which begin as one process: what takes long is
reading its modules, and that is done once for all.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # `python -I` leaves it out

import children
import waitress

NAME, FOLDER, PORT = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
THREADS = 12
CELL = "{scheme}://{username}@{hostname}/%s?{query}"
"""As Nova writes the addresses of its cells: filled from its configuration, so that they may change."""
BUS = "{scheme}://{username}:{password}@{hostname}:{port}//"
LOOK_SECONDS = 0.2
PATIENCE_SECONDS = 180


def main():
    os.environ.update({f"OS_{name}_CONFIG_DIR": str(FOLDER) for name in ("GLANCE", "PLACEMENT", "NOVA", "NEUTRON")})
    {"keystone": keystone, "glance": glance, "placement": placement, "neutron": neutron, "nova": nova}[NAME]()


def serve(application):
    waitress.serve(application, host="127.0.0.1", port=PORT, threads=THREADS, ident="")


def once(*steps):
    """What is done to an empty database: one step after the other, each a function and its words."""
    if not (FOLDER / f"{NAME}.tables").exists():
        for work, *words in steps:
            children.done(told, work, *words)
        (FOLDER / f"{NAME}.tables").touch()


def told(work, *words):
    """As on the command line."""
    sys.argv = [NAME, *words]
    sys.exit(work())


def keystone():
    import identity

    serve(identity.application(FOLDER, f"http://127.0.0.1:{PORT}", (FOLDER / "keystone.database").read_text()))


def glance():
    from glance.cmd import manage

    once((manage.main, "--config-file", str(FOLDER / "glance-api.conf"), "db", "sync"))
    sys.argv = ["glance-api"]
    from glance.wsgi.api import application

    serve(application)


def placement():
    from placement.cmd import manage

    once((manage.main, "--config-file", str(FOLDER / "placement.conf"), "db", "sync"))
    sys.argv = ["placement-api"]
    from placement.wsgi.api import application

    serve(application)


def neutron():
    from neutron.db.migration import cli

    files = [str(FOLDER / name) for name in ("neutron.conf", "ml2.ini")]
    once((cli.main, *(word for file in files for word in ("--config-file", file)), "upgrade", "heads"))
    sys.argv = ["neutron-api"]
    os.environ["OS_NEUTRON_CONFIG_FILES"] = "neutron.conf;ml2.ini"
    from neutron.wsgi.api import application

    serve(application)


def nova():
    os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"
    from nova import monkey_patch

    monkey_patch.patch()
    import nova.api.openstack.compute.routes
    import nova.cmd.compute
    import nova.compute.manager
    import nova.conductor.manager
    import nova.scheduler.manager
    import nova.virt.fake
    from nova.cmd import manage

    words = ("--config-file", str(FOLDER / "nova.conf"))
    once(
        (manage.main, *words, "api_db", "sync"),
        (manage.main, *words, "cell_v2", "map_cell0", "--database_connection", CELL % "nova_cell0"),
        (manage.main, *words, "db", "sync"),
        (manage.main, *words, "cell_v2", "create_cell", "--name", "cell1", "--database_connection", CELL % "nova",
         "--transport-url", BUS),
    )  # fmt: skip
    begun = [children.begun(api)]
    until_there("bus")
    begun += [children.begun(service, name) for name in ("conductor", "scheduler")]
    until_there("catalogue")
    compute = children.begun(told, nova.cmd.compute.main, *words)
    (FOLDER / "compute.pid").write_text(str(compute))
    begun += [compute, children.begun(found, words)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.wait()  # the last of them is done soon
    os.wait()
    raise SystemExit(f"One of Nova's services has ended: {begun}.")


def until_there(name):
    """The bed says by an empty file that something is there."""
    look, waited = threading.Event(), 0.0
    while not (FOLDER / f"{name}.there").exists():
        look.wait(LOOK_SECONDS)
        waited += LOOK_SECONDS
        if waited > PATIENCE_SECONDS:
            raise SystemExit(f"There is no {name} after {PATIENCE_SECONDS} s.")


def api():
    sys.argv = ["nova-api"]
    os.environ["OS_NOVA_CONFIG_FILES"] = f"{sys.prefix}/etc/nova/api-paste.ini;nova.conf"
    from nova.wsgi.osapi_compute import application

    serve(application)


def service(name):
    """As `nova-conductor` and `nova-scheduler` begin, but for the worker processes, of which a bed needs none."""
    import nova.conf
    from nova import config, objects
    from nova import service as services
    from oslo_log import log

    config.parse_args([f"nova-{name}", "--config-file", str(FOLDER / "nova.conf")])
    log.setup(nova.conf.CONF, "nova")
    objects.register_all()
    objects.Service.enable_min_version_cache()
    services.serve(services.Service.create(binary=f"nova-{name}", topic=name), workers=1, no_fork=True)
    services.wait()


def found(words):
    """As `nova-manage cell_v2 discover_hosts` until there is one: the compute service has told the table that it is there."""
    from nova import config, context, objects
    from nova.objects import host_mapping

    config.parse_args(["nova-manage", *words])
    objects.register_all()
    who, look = context.get_admin_context(), threading.Event()
    while not objects.HostMappingList.get_by_cell_id(who, cell(who).id):
        host_mapping.discover_hosts(who)
        look.wait(LOOK_SECONDS)


def cell(who):
    from nova import objects

    return next(each for each in objects.CellMappingList.get_all(who) if not each.is_cell0())


if __name__ == "__main__":
    main()
