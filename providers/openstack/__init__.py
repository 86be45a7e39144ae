"""OpenStack: Jetstream2, Rackspace Flex, EGI's sites, Chameleon, a campus's own."""

from providers.openstack.driver import APPLICATION_CREDENTIAL, OIDC, OpenStackProvider

__all__ = ["APPLICATION_CREDENTIAL", "OIDC", "OpenStackProvider"]
