"""Every request and every answer, read by the descriptions of AWS that its own SDK ships: what they do not know is an error."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote

import botocore.session
from botocore.model import OperationModel, Shape
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator
from moto.core.model import ServiceModel  # botocore's, with what moto's parsers need besides
from moto.core.parse import PROTOCOL_PARSERS
from werkzeug.datastructures import Headers, MultiDict
from werkzeug.wrappers import Response

SESSION = botocore.session.Session()
SECRETS = {"WebIdentityToken", "UserData", "Policy"}
ODD = {
    ("ListSchedules", name)
    for name in ("Description", "ScheduleExpression", "ScheduleExpressionTimezone", "FlexibleTimeWindow",
                 "ActionAfterCompletion", "KmsKeyArn", "StartDate", "EndDate")
}  # fmt: skip
"""Operation and element: what moto answers and the SDK does not know, and nobody of ours reads."""


class NotInTheModel(Exception):
    """Something was asked or answered that AWS does not have."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request, as its model reads it."""

    service: str
    action: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    model: OperationModel | None = None

    def shown(self) -> dict[str, Any]:
        """The parameters, without what is secret."""
        return {name: "…" if name in SECRETS else value for name, value in self.parameters.items()}


@cache
def service(name: str) -> ServiceModel:
    described = SESSION.get_component("data_loader").load_service_model(name, "service-2")
    return ServiceModel(described, name)


def read(name: str, environ: Mapping[str, Any], body: bytes) -> Asked:
    """Raises NotInTheModel. What is read is written again by the SDK: nothing may be left over."""
    model, values, path = _operation(service(name), environ, body)
    headers = Headers([("Content-Type", environ.get("CONTENT_TYPE", ""))])
    parser = PROTOCOL_PARSERS[model.service_model.protocol](model)
    wanted = {"method": environ["REQUEST_METHOD"], "values": values, "headers": headers, "body": body,
              "url_path": environ["PATH_INFO"], "url_params": path}  # fmt: skip
    parameters = parser.parse(wanted) if model.input_shape else {}
    report = ParamValidator().validate(parameters, model.input_shape) if model.input_shape else None
    if report and report.has_errors():
        raise NotInTheModel(f"{model.name}: {report.generate_report()}")
    _require_nothing_left_over(model, parameters, values, body)
    return Asked(service=name, action=model.name, parameters=parameters, model=model)


def _operation(
    model: ServiceModel, environ: Mapping[str, Any], body: bytes
) -> tuple[OperationModel, MultiDict[str, str], dict[str, str]]:
    query = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    if model.protocol == "rest-json":
        found, path = _by_path(model, environ["REQUEST_METHOD"], environ["PATH_INFO"])
        return found, MultiDict(query), path
    if model.protocol == "json":
        return _named(model, environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]), MultiDict(), {}
    form = parse_qsl(body.decode(), keep_blank_values=True)
    return _named(model, dict(form).get("Action", "")), MultiDict(form), {}


def _named(model: ServiceModel, action: str) -> OperationModel:
    if action not in model.operation_names:
        raise NotInTheModel(f"{model.service_name} has no {action!r}")
    return model.operation_model(action)


@cache
def _paths(model: ServiceModel) -> list[tuple[str, re.Pattern[str], str]]:
    """Those without a parameter first, as the more exact ones."""
    https = [(name, model.operation_model(name).http) for name in model.operation_names]
    found = [(http["method"], http["requestUri"].partition("?")[0], name) for name, http in https]
    ordered = sorted(found, key=lambda each: each[1].count("{"))
    return [(method, re.compile(re.sub(r"\{(\w+)\+?\}", r"(?P<\1>[^/]+)", uri)), name) for method, uri, name in ordered]


def _by_path(model: ServiceModel, method: str, path: str) -> tuple[OperationModel, dict[str, str]]:
    for wanted, pattern, name in _paths(model):
        if wanted == method and (found := pattern.fullmatch(path)):
            return model.operation_model(name), {key: unquote(value) for key, value in found.groupdict().items()}
    raise NotInTheModel(f"{model.service_name} has no {method} {path}")


def _require_nothing_left_over(
    model: OperationModel, parameters: Mapping[str, Any], values: MultiDict[str, str], body: bytes
) -> None:
    written = create_serializer(model.service_model.protocol).serialize_to_request(parameters, model)
    if model.service_model.protocol in ("query", "ec2"):
        again = {key: _text(value) for key, value in written["body"].items()}
        sent = values.to_dict()
    else:
        again = json.loads(written["body"] or b"{}")
        sent = json.loads(body or b"{}")
    if again != sent:
        extra = {key: sent.get(key) for key in {*again, *sent} if again.get(key) != sent.get(key)}
        raise NotInTheModel(f"{model.name} was asked with what its model does not have: {extra}")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# Answers.


def require_known(asked: Asked, answer: Response) -> None:
    """Raises NotInTheModel for an element of the answer that the SDK would not read."""
    shape = asked.model.output_shape if asked.model else None
    if answer.status_code >= 300 or shape is None:
        return
    text = answer.get_data(as_text=True)
    if text.startswith("<") or "xml" in (answer.content_type or ""):
        odd = list(_odd_elements(shape, _result(ET.fromstring(text), shape), asked.action))
    else:
        odd = list(_odd_members(shape, json.loads(text or "{}"), asked.action))
    if odd := [each for each in odd if each not in ODD]:
        raise NotInTheModel(f"an answer with what its model does not have: {odd}")


def _result(root: ET.Element, shape: Shape) -> ET.Element:
    wrapper = shape.serialization.get("resultWrapper")
    found = next((child for child in root if _tag(child) == wrapper), None) if wrapper else root
    return root if found is None else found


def _odd_elements(shape: Shape, node: ET.Element, where: str) -> Iterator[tuple[str, str]]:
    if shape.type_name == "list":
        for child in node:
            yield from _odd_elements(shape.member, child, where)
    if shape.type_name != "structure":
        return
    known = {member.serialization.get("name", name): member for name, member in shape.members.items()}
    for child in node:
        name = _tag(child)
        if name in ("requestId", "ResponseMetadata"):
            continue
        if name not in known:
            yield where.partition(".")[0], name
            continue
        yield from _odd_elements(known[name], child, f"{where}.{name}")


def _odd_members(shape: Shape, value: Any, where: str) -> Iterator[tuple[str, str]]:
    if shape.type_name == "list":
        for each in value or []:
            yield from _odd_members(shape.member, each, where)
    if shape.type_name != "structure" or not isinstance(value, Mapping):
        return
    known = {member.serialization.get("name", name): member for name, member in shape.members.items()}
    for name, each in value.items():
        if name not in known:
            yield where, name
        else:
            yield from _odd_members(known[name], each, where)


def _tag(node: ET.Element) -> str:
    return node.tag.rpartition("}")[2]


def written(asked: Asked, result: Mapping[str, Any]) -> Response:
    """An answer of EC2 or of a JSON service, written by the SDK's description of it; what that does not know fails here."""
    assert asked.model is not None
    shape = asked.model.output_shape
    if asked.model.service_model.protocol != "ec2":
        return Response(json.dumps(result), content_type="application/x-amz-json-1.1")
    inner = elements(shape, result) if shape else "<return>true</return>"
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return Response(f"{head}<{asked.action}Response>{inner}<requestId>0</requestId></{asked.action}Response>",
                    content_type="text/xml")  # fmt: skip


def elements(shape: Shape, value: Any) -> str:
    """EC2's XML."""
    if shape.type_name == "structure":
        members = ((shape.members[name], name, each) for name, each in value.items() if each is not None)
        return "".join(
            f"<{tag}>{elements(member, each)}</{tag}>"
            for member, tag, each in ((m, m.serialization.get("name", name), each) for m, name, each in members)
        )
    if shape.type_name == "list":
        return "".join(f"<item>{elements(shape.member, each)}</item>" for each in value)
    return _text(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
