"""What the contract's tests stand on: override the first ones, and `faults` where the double can arrange them."""

# ruff: noqa: S101
from __future__ import annotations

import secrets
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

import pytest

from providers.base import (
    Boot,
    Connection,
    Credential,
    Instance,
    InstanceState,
    Offer,
    Order,
    Provider,
    Request,
    Resources,
    Tag,
)
from providers.contract.spending import Purse, of_this_run

GONE = InstanceState.GONE
LASTS = timedelta(hours=1)
TOKEN = "a-one-time-token-nobody-may-see"  # noqa: S105 - stands in for a secret, to look for where it must not be

FreshToken = Callable[[Connection], str | None]
MakeOrder = Callable[..., Order]
Wait = Callable[[Callable[[], object], str], None]


class Faults:
    """What a double can arrange. A name it does not know is skipped by the suite; override `arrange` and `knows`.

    lost_response    `call` takes effect, its answer is lost           duplicate      `call` arrives twice, at once
    no_capacity quota permission bad_credential unavailable            `call` is refused with this
    half_created     disk and address are made, then `provision` fails silence        `call` is never answered
    slow_boot        booting takes a minute of the cloud's time        slow_end       ending takes a minute of it
    hidden           an instance shows in lists only after `lists_within`
    """

    quota = permission = ""
    """The double's own name for the quota that is used up, and for the permission that is missing: sentences have it."""

    def knows(self, fault: str, call: str) -> bool:  # noqa: ARG002
        return False

    def arrange(self, fault: str, call: str, *, times: int = 1) -> None:
        """The next `times` calls of this verb meet this fault."""

    def die(self, instance: Instance) -> None:  # noqa: ARG002
        """The machine ends by itself, now; what can stay behind of it, stays."""
        pytest.skip("no machine can be made to die here")

    def power_off(self, instance: Instance) -> None:  # noqa: ARG002
        """The machine's operating system powers it off, now."""
        pytest.skip("no machine can be powered off from inside here")

    def clear(self) -> None:
        """Everything works again."""


class Fixtures:
    """The first ones are there to be overridden."""

    @pytest.fixture
    def provider(self) -> Provider:
        """The provider under test, configured."""
        raise NotImplementedError("override the fixture `provider`")

    @pytest.fixture
    def another(self, provider: Provider) -> Callable[[], Provider]:
        """A second one with the same configuration: another worker, that remembers nothing."""
        return lambda: type(provider)(provider.configuration)

    @pytest.fixture
    def connection(self, provider: Provider) -> Connection:
        return Connection(kind=provider.kinds[0].name)

    @pytest.fixture
    def bad_connection(self) -> Connection:
        """One that the cloud must refuse."""
        return Connection(kind="no-such-kind")

    @pytest.fixture
    def identity_token(self) -> str | None:
        return None

    @pytest.fixture
    def fresh_token(self, identity_token: str | None) -> FreshToken:
        """Makes the token that `sign_in` trades for this connection: a new one each time, where tokens work once."""
        return lambda connection: identity_token  # noqa: ARG005

    @pytest.fixture
    def boot(self) -> Boot:
        """What the instances are told. For drivers that start the agent themselves: one that stays."""
        return Boot(user_data=f"#cloud-config\n# {TOKEN}\n", config={"token": TOKEN}, agent="/nonexistent/agent.py")

    @pytest.fixture
    def faults(self) -> Faults:
        return Faults()

    @pytest.fixture
    def advance(self) -> Callable[[float], None]:
        """Moves the double's clock; a real cloud's moves by itself."""
        return lambda seconds: None  # noqa: ARG005

    @pytest.fixture
    def patience(self) -> float:
        """Seconds to wait for what the cloud does in its own time."""
        return 20

    @pytest.fixture
    def at_once(self) -> float:
        """Seconds within which a verb returns that waits for no machine: none boots or ends as soon."""
        return 5

    @pytest.fixture
    def billed(self) -> Callable[[str], list[str]] | None:
        """What is being billed for an order right now, by the cloud's own account; None where it cannot say."""
        return None

    @pytest.fixture
    def is_free(self) -> Callable[[str], bool]:
        """Whether this part costs nothing by itself, as a firewall group: it may outlast a machine that powers itself off."""
        return lambda part: False  # noqa: ARG005

    @pytest.fixture
    def with_every_bill(self) -> Callable[[], list[str]] | None:
        """All that was ever billed, for whatever order; None where the cloud cannot say."""
        return None

    @pytest.fixture
    def untagged(self) -> Callable[[], list[str]] | None:
        """What the account holds without a tag; None where the cloud cannot say."""
        return None

    @pytest.fixture
    def labelled(self) -> Callable[[str], Mapping[str, Mapping[str, str]]] | None:
        """The labels of each thing that was made for an order, as the cloud has them; None where it cannot say."""
        return None

    @pytest.fixture
    def bought_in(self) -> Callable[[str], str | None] | None:
        """The zone that what was bought for an order is in; None where the cloud has none or cannot say."""
        return None

    @pytest.fixture
    def console_says(self) -> str:
        """Words that a machine writes to its console when it has booted; empty where this is not known."""
        return ""

    @pytest.fixture
    def reads_user_data(self) -> bool:
        """False for drivers that start the agent themselves: they hand no user data to anybody."""
        return True

    @pytest.fixture
    def send(self) -> Callable[[Request, Mapping[str, str]], tuple[int, Mapping[str, str]]]:
        """Sends what a machine would send, with these headers more; status and headers of the answer."""
        return over_https

    @pytest.fixture
    def real(self) -> bool:
        """True where what is bought costs money: then nothing is bought without `--contract-spend`."""
        return False

    # What the tests are written in.

    @pytest.fixture
    def purse(self, real: bool, request: pytest.FixtureRequest) -> Purse | None:
        """What may be spent; None where nothing costs anything."""
        return of_this_run(request.config) if real else None

    @pytest.fixture
    def credential(self, provider: Provider, connection: Connection, fresh_token: FreshToken) -> Credential:
        return provider.sign_in(connection, fresh_token(connection))

    @pytest.fixture
    def offer(self, provider: Provider, credential: Credential) -> Offer:
        return provider.offers(credential, Resources())[0]

    @pytest.fixture
    def broker(self) -> str:
        return f"contract-{secrets.token_hex(4)}"

    @pytest.fixture
    def make_order(
        self,
        provider: Provider,
        credential: Credential,
        offer: Offer,
        boot: Boot,
        broker: str,
        faults: Faults,
        purse: Purse | None,
    ) -> Iterator[MakeOrder]:
        """Makes orders, and ends whatever was bought with them when the test is over."""
        made: list[Order] = []

        def make(
            order_id: str | None = None,
            *,
            of: str = broker,
            offer: Offer = offer,
            boot: Boot = boot,
            lasts: timedelta = LASTS,
        ) -> Order:
            if purse is not None:
                purse.promise(offer, lasts)
            order_id = order_id or new_id()
            until = datetime.now(UTC).replace(microsecond=0) + lasts
            tag = Tag(broker=of, launch=f"l{len(made)}", order=order_id, until=until)
            made.append(Order(id=order_id, offer=offer, tag=tag, boot=boot))
            return made[-1]

        yield make
        faults.clear()
        for order in made:
            provider.terminate(credential, None, order.id)

    @pytest.fixture
    def wait(self, advance: Callable[[float], None], patience: float) -> Wait:
        """Waits for a condition, helping the cloud's clock along."""

        def wait(condition: Callable[[], object], what: str) -> None:
            deadline = time.monotonic() + patience
            while not condition():
                assert time.monotonic() < deadline, f"not within {patience} s: {what}"
                advance(5)
                threading.Event().wait(0.02)

        return wait

    @pytest.fixture
    def buy(
        self, provider: Provider, credential: Credential, make_order: MakeOrder, wait: Wait
    ) -> Callable[[], Instance]:
        """An instance that runs."""

        def buy() -> Instance:
            bought = provider.provision(credential, make_order())
            wait(lambda: provider.describe(credential, bought.id).state is InstanceState.RUNNING, "it runs")
            return bought

        return buy

    @pytest.fixture
    def end(self, provider: Provider, credential: Credential, wait: Wait) -> Callable[..., None]:
        """Ends it, and waits until the cloud itself says that it is gone; asks again for as long, as the broker does."""

        def gone(instance_id: str, order_id: str) -> bool:
            provider.terminate(credential, instance_id, order_id)
            return provider.describe(credential, instance_id).state is GONE

        return lambda instance_id, order_id: wait(lambda: gone(instance_id, order_id), "it is gone")

    @pytest.fixture
    def with_fault(self, faults: Faults) -> Callable[..., None]:
        def with_fault(fault: str, call: str, *, times: int = 1) -> None:
            if not faults.knows(fault, call):
                pytest.skip(f"{fault} in {call} cannot be arranged here")
            faults.arrange(fault, call, times=times)

        return with_fault

    @pytest.fixture
    def orders_listed(self, provider: Provider, credential: Credential, broker: str) -> Callable[[], list[str]]:
        return lambda: sorted(i.tag.order for i in provider.instances(credential, broker) if i.tag)


def over_https(request: Request, more: Mapping[str, str]) -> tuple[int, Mapping[str, str]]:
    """As a machine sends it: with nothing but the standard library."""
    headers = {**request.headers, **more}
    asked = urllib.request.Request(request.url, request.body.encode() or None, headers, method=request.method)  # noqa: S310 - to a double or a cloud
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:  # noqa: S310
            return answer.status, answer.headers
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.headers


def new_id() -> str:
    """An order's id as the broker makes them: 16 of a-z and 2-7."""
    return "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(16))
