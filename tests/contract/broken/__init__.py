"""Drivers of the fake cloud, each broken in one way that real drivers are broken in. `caught_by` names who must notice."""

from tests.contract.broken import accounts, buying, ending, offers

BROKEN = [
    driver
    for module in (accounts, offers, buying, ending)
    for driver in vars(module).values()
    if isinstance(driver, type) and hasattr(driver, "caught_by")
]
