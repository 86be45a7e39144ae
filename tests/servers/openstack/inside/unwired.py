"""Lets Neutron bind every port without an agent: the machines of Nova's fake driver have no wires.

Where machines boot, Nova makes each a wire (a tap device), and `tests/servers/openstack/bridge.py` connects it.
"""

from __future__ import annotations

from neutron_lib import constants
from neutron_lib.api.definitions import portbindings
from neutron_lib.plugins.ml2 import api


class Unwired(api.MechanismDriver):
    kind = portbindings.VIF_TYPE_OTHER

    def initialize(self):
        pass

    def bind_port(self, context):
        segment = context.segments_to_bind[0][api.ID]
        seen = {portbindings.CAP_PORT_FILTER: True}
        context.set_binding(segment, self.kind, seen, status=constants.PORT_STATUS_ACTIVE)


class Wired(Unwired):
    kind = portbindings.VIF_TYPE_TAP
