"""How large a session is, as settings say it: for a backend, and as the plain sizes of the launch form."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from providers.base import Resources
from providers.sentences import template

TITLES = (template("Small"), template("Medium"), template("Large"))
"""What the sizes are called that `settings.sizes` begins with: said in the language of whoever looks, as long as they are."""


class ResourceSetting(BaseModel):
    """What a machine or container for one session has. Empty: whatever the backend gives."""

    model_config = ConfigDict(extra="forbid")

    cpu: float | None = Field(None, gt=0)
    """Processors."""
    memory_mb: int | None = Field(None, gt=0)
    """Memory, in MB."""
    disk_gb: int | None = Field(None, gt=0)
    """Disk, in GB."""
    gpu: int | None = Field(None, ge=0)
    """How many GPUs."""
    hours: float | None = Field(None, gt=0)
    """How long it may last."""


class SizeSetting(ResourceSetting):
    """One of the plain sizes that the launch form offers."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")
    """What links say: lower-case letters, digits and hyphens."""
    title: str
    """What people read."""

    @property
    def resources(self) -> Resources:
        """As places are asked for it."""
        return Resources(cpu=self.cpu, memory_mb=self.memory_mb, disk_gb=self.disk_gb, gpu=self.gpu)
