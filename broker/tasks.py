"""What the queue can run, by name: the same functions on the embedded queue and on Celery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from broker import connections, identity, launches, peers, reaper, service, settings, signins

if TYPE_CHECKING:
    from celery import Celery


KEEP_SECONDS = 60.0


def all_of(at: service.Service) -> Mapping[str, Callable[..., object]]:
    """Every task of this service."""
    return {
        "advance": lambda launch_id: launches.advance(at, launch_id),
        "tick": lambda: tick(at),
        "sweep": lambda: reaper.sweep(at) and None,
        "keep": lambda: keep(at),
        "peers": lambda: peers.look(at) and None,
    }


def every(chosen: settings.Settings) -> Mapping[str, float]:
    """The tasks that run by themselves, and how many seconds apart."""
    looks = {"sweep": chosen.sweep_seconds, "peers": chosen.peer_look_seconds}
    return {"tick": chosen.tick_seconds, "keep": KEEP_SECONDS, **looks}


def tick(at: service.Service) -> None:
    """Queue every launch that is due: this is what makes a lost message cost a moment and nothing else."""
    for launch_id in launches.due(at):
        at.queue.enqueue("advance", launch_id, delay=0)


def keep(at: service.Service) -> None:
    """Rotate signing keys when it is time, and erase secrets that nothing needs any more."""
    identity.keep(at)
    connections.erase_unneeded(at)
    signins.purge(at)


def celery_app() -> Celery:
    """The Celery application. Its tasks are sent as hints: late acknowledgement, no results, nothing kept."""
    from celery import Celery

    chosen = settings.current()
    app = Celery("anybinder", broker=chosen.redis_url.get_secret_value(), set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=True,
        task_time_limit=chosen.lease_seconds,
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
        task_default_queue=f"anybinder-{chosen.runtime.name}",
        beat_schedule={
            name: {"task": f"anybinder.{name}", "schedule": seconds, "options": {"expires": max(seconds, 1.0)}}
            for name, seconds in every(chosen).items()
        },
        beat_schedule_filename=str(chosen.home / "beat"),
    )
    return app


def worker_app() -> Celery:
    """The same with the tasks registered, for a worker process. The service is built in each child, after the fork."""
    app = celery_app()
    built: list[service.Service] = []

    def at() -> service.Service:
        if not built:
            built.append(service.build(settings.current(), migrate=False))
        return built[0]

    for name in ("advance", "tick", "sweep", "keep", "peers"):

        def run(*args: str, name: str = name) -> None:
            all_of(at())[name](*args)

        app.task(run, name=f"anybinder.{name}")
    return app
