"""A real OpenStack on free ports of this computer: Keystone, Glance, Placement, Nova and Neutron from PyPI.

    with bed.running() as cloud:
        project, ada = cloud.new_project("paleo"), cloud.new_user("ada")     # and all else that `keystone.Keystone` can
        cloud.ask("GET", "/servers/detail?all_tenants=1", of="compute")

Real is everything but what a machine runs on: Nova's own fake driver "boots" at once and runs nothing, and no agent plugs
in a port. Below are MariaDB and RabbitMQ from Debian. What a first start has made is kept in the clone's `.work/openstack`.

    with bridge.Bridge() as wires, bed.running(on=wires) as cloud:           # as root: machines boot
        cloud.image("debian", disk, "qcow2", kernel_id=cloud.image("kernel", kernel, "aki"), …)
        cloud.wired(project, wires)                                          # their network

There Nova's libvirt driver has QEMU emulate them in software, told what to do by a config drive. Their wires are tap devices
on a bridge, in place of an agent of Neutron's: security groups are kept, and nothing enforces them.

bed            starts and ends all of it          packages       the virtual environment it runs in
seed           what its operators would make      configuration  the services' files, from templates/
database bus   MariaDB, RabbitMQ                  inside/        the programs that run in that environment
hypervisor     libvirt, of its own               bridge         what machines are wired to
"""
