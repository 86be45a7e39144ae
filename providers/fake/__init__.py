"""A cloud in a process of its own, with faults on demand; it outlives whatever is killed around it.

`FakeProvider` is its driver, `FakeCloud` starts one and tells it what to do. Its machines run the real agent.
"""

from providers.fake.driver import FakeProvider
from providers.fake.handle import FakeCloud

__all__ = ["FakeCloud", "FakeProvider"]
