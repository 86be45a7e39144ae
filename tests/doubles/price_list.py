"""A server of a price list in the shape of AWS's `index.csv`, and the ways in which one goes wrong.

The shape is AWS's own of 2025: five lines that say what it is, one that names the columns, every cell in quotes but those
without a word in them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COLUMNS = (
    "SKU,OfferTermCode,RateCode,TermType,PriceDescription,EffectiveDate,StartingRange,EndingRange,Unit,PricePerUnit,Currency,"
    "RelatedTo,LeaseContractLength,PurchaseOption,OfferingClass,Product Family,serviceCode,Location,Location Type,"
    "Instance Type,Current Generation,Instance Family,vCPU,Physical Processor,Clock Speed,Memory,Storage,"
    "Network Performance,Processor Architecture,Storage Media,Volume Type,Max Volume Size,Max IOPS/volume,"
    "Max IOPS Burst Performance,Max throughput/volume,Provisioned,Tenancy,EBS Optimized,Operating System,License Model,"
    "Group,Group Description,Transfer Type,From Location,From Location Type,To Location,To Location Type,usageType,"
    "operation,AvailabilityZone,CapacityStatus,ClassicNetworkingSupport,Dedicated EBS Throughput,ECU,Elastic Graphics Type,"
    "Enhanced Networking Supported,From Region Code,GPU,GPU Memory,Instance,instanceSKU,Intel AVX2 Available,"
    "Intel AVX Available,Intel Turbo Available,MarketOption,Normalization Size Factor,Physical Cores,Pre Installed S/W,"
    "Processor Features,Product Type,Region Code,Resource Type,serviceName,SnapshotArchiveFeeType,To Region Code,"
    "Volume API Name,VPCNetworkingSupport"
)
NAMES = COLUMNS.split(",")
HEAD = (
    '"FormatVersion","v1.0"\n'
    '"Disclaimer","This pricing list is for informational purposes only. All prices are subject to the additional terms."\n'
    '"Publication Date","2026-11-27T22:53:08Z"\n'
    '"Version","20261127225308"\n'
    '"OfferCode","AmazonEC2"\n'
)
USUAL = {
    "SKU": "2223B6PCG6QAUYY6",
    "TermType": "OnDemand",
    "PriceDescription": "$0.096 per On Demand Linux, shared Instance Hour",
    "EffectiveDate": "2026-11-01",
    "Unit": "Hrs",
    "Currency": "USD",
    "Product Family": "Compute Instance",
    "serviceCode": "AmazonEC2",
    "Tenancy": "Shared",
    "Operating System": "Linux",
    "License Model": "No License required",
    "usageType": "BoxUsage",
    "operation": "RunInstances",
    "CapacityStatus": "Used",
    "MarketOption": "OnDemand",
    "Pre Installed S/W": "NA",
    "Region Code": "us-west-2",
}


def row(machine: str, cost: str, **other: str) -> str:
    """One line; `other` by column, with `_` for what is no letter."""
    told = {_word(name): value for name, value in other.items()}
    cells = {**USUAL, "Instance Type": machine, "PricePerUnit": cost}
    return ",".join(_cell(told.get(_word(name), cells.get(name, ""))) for name in NAMES)


def _word(name: str) -> str:
    return "".join(sign if sign.isalnum() else "_" for sign in name)


def _cell(value: str) -> str:
    return f'"{value}"' if value else ""


def listed(*rows: str) -> bytes:
    return (HEAD + ",".join(map(_cell, NAMES)) + "\n" + "\n".join(rows) + "\n").encode()


class PriceList:
    """What the server says, and what it was asked for."""

    def __init__(self) -> None:
        self.body, self.status, self.breaks_off_after = listed(), 200, -1
        self.holds_after = -1
        """It says so many bytes, and nothing more until the server ends."""
        self.asked: list[str] = []
        self.url = ""


@contextmanager
def serving() -> Iterator[PriceList]:
    """On a port of this computer."""
    made, ending = PriceList(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            self.send_response(made.status)
            self.send_header("content-length", str(len(made.body)))
            self.end_headers()
            most = max(made.breaks_off_after, made.holds_after)
            self.wfile.write(made.body if most < 0 else made.body[:most])
            if made.holds_after >= 0:
                self.wfile.flush()
                ending.wait(60)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield made
    finally:
        ending.set()
        server.shutdown()
        server.server_close()
        thread.join()
