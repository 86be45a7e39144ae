"""HTTP/1.1 heads and chunks, read so strictly that only one reading is possible.

Both sides are untrusted: browsers' requests, and the responses of a session, which runs a stranger's code. A head is
read by llhttp and then checked further; what is forwarded is written anew from what was read, never copied. Whatever
two programs could read in two ways is refused, because request smuggling lives from that difference.
"""

from __future__ import annotations

import http
from collections.abc import Set
from typing import NoReturn

import httptools

REQUEST_HEAD_LIMIT = 32 * 1024
RESPONSE_HEAD_LIMIT = 64 * 1024
TRAILER_LIMIT = 8 * 1024
CHUNK_LINE_LIMIT = 256  # a size of up to 16 digits and a short extension; nobody sends more

STATUS_LINE = {
    code: f"HTTP/1.1 {code} {http.HTTPStatus(code).phrase if code in set(http.HTTPStatus) else ''}\r\n".encode()
    for code in range(100, 600)
}

# Once in a head or not at all: a second one is how two readers come to differ.
_SINGLE = frozenset(
    b"host content-length transfer-encoding authorization origin expect sec-fetch-site sec-fetch-mode sec-fetch-dest "
    b"x-anybinder-session sec-websocket-key".split()
)
_JOINED = dict.fromkeys(
    b"connection upgrade keep-alive te trailer proxy-connection proxy-authorization "
    b"proxy-authenticate http2-settings forwarded x-forwarded-for x-forwarded-host x-forwarded-proto "
    b"x-forwarded-port x-forwarded-prefix x-forwarded-ssl x-forwarded-scheme x-real-ip x-scheme accept".split(),
    b", ",
) | {b"cookie": b"; "}
_REQUEST_FIELDS = _SINGLE.union(_JOINED)
_ALSO_FORWARDED = frozenset(b"accept origin sec-fetch-site sec-fetch-mode sec-fetch-dest sec-websocket-key".split())
_RESPONSE_SINGLE = frozenset(b"content-length transfer-encoding location".split())
_RESPONSE_FIELDS = _RESPONSE_SINGLE | frozenset(
    b"connection upgrade keep-alive te trailer proxy-connection proxy-authenticate alt-svc clear-site-data".split()
)
_HOP_BY_HOP_SAFE = frozenset((b"", b"keep-alive", b"close", b"upgrade"))


class Refused(Exception):
    """This request cannot be served."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class BadResponse(Exception):
    """The session answered something that is not HTTP/1.1."""


class Request:
    """One request's head. `fields` holds what the front decides by (lower-case names); `plain` everything else, ready
    to be joined: name, colon, value, line end."""

    __slots__ = ("chunked", "fields", "keep_alive", "length", "method", "minor", "plain", "target", "upgrade")

    method: bytes
    target: bytes
    minor: int
    fields: dict[bytes, bytes]
    plain: list[bytes]
    length: int
    chunked: bool
    keep_alive: bool
    upgrade: bytes

    @property
    def has_body(self) -> bool:
        return self.chunked or self.length > 0

    @property
    def websocket(self) -> bool:
        return self.upgrade == b"websocket"


class RequestReader:
    """Reads one whole head at a time. One reader serves every connection of a loop, as it keeps nothing in between."""

    def __init__(self) -> None:
        self._parser: httptools.HttpRequestParser = httptools.HttpRequestParser(self)
        self._target = b""
        self._fields: dict[bytes, bytes] = {}
        self._plain: list[bytes] = []
        self._fault = ""
        self._complete = False

    def read(self, head: bytes) -> Request:
        """What this head, up to and with its empty line, says. Raises Refused where it is not strictly HTTP/1."""
        self._target, self._fields, self._plain = b"", {}, []
        self._fault, self._complete = "", False
        parser = self._parser
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # the head was read; what follows is this program's business
        except httptools.HttpParserError:
            self._renew()
            raise Refused(400, "This is not a well-formed HTTP request.") from None
        request = Request()
        request.method, request.target = parser.get_method(), self._target
        request.fields, request.plain = self._fields, self._plain
        if not (_one_line_end(head) and self._complete) or self._fault:
            self._refuse(400, self._fault or "This is not a well-formed HTTP request.")
        self._check_request_line(request, head)
        self._check_framing(request)
        _check_connection(request)
        if request.length or request.chunked or request.upgrade or not request.keep_alive:
            self._renew()  # llhttp would wait for a body that is counted elsewhere
        return request

    def _renew(self) -> None:
        self._parser = httptools.HttpRequestParser(self)

    def _refuse(self, status: int, sentence: str) -> NoReturn:
        self._renew()
        raise Refused(status, sentence)

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        if key in _REQUEST_FIELDS:
            self._field(key, value)
            if key in _ALSO_FORWARDED:
                self._plain += (name, b": ", value, b"\r\n")
        elif b"_" not in key or key.replace(b"_", b"-") not in _REQUEST_FIELDS:
            # CGI-like servers read X_Forwarded_For as X-Forwarded-For, so such a name is dropped
            self._plain += (name, b": ", value, b"\r\n")

    def _field(self, key: bytes, value: bytes) -> None:
        fields = self._fields
        value = value.strip(b" \t")
        if key in fields:
            if key in _SINGLE:
                self._fault = f"The header {key.decode()} may be sent once."
                return
            value = fields[key] + _JOINED[key] + value
        fields[key] = value

    def on_headers_complete(self) -> None:
        self._complete = True

    def _check_request_line(self, request: Request, head: bytes) -> None:
        method, target = request.method, request.target
        start = len(method) + 1 + len(target)
        version = head[start : start + 11]
        if version == b" HTTP/1.1\r\n":
            request.minor = 1
        elif version == b" HTTP/1.0\r\n":
            request.minor = 0
        elif b"HTTP/1." in head[: start + 12]:
            self._refuse(400, "This is not a well-formed HTTP request.")
        else:
            self._refuse(505, "Only version 1.1 of HTTP is spoken here.")
        if not head.startswith(target, len(method) + 1) or target[:1] != b"/" or b"#" in target:
            self._refuse(400, "The request target must be a path.")
        if method in (b"TRACE", b"CONNECT"):
            self._refuse(405, "This method is not served.")

    def _check_framing(self, request: Request) -> None:
        fields = request.fields
        request.length, request.chunked = 0, False
        length = fields.get(b"content-length")
        if length is not None:
            if not length.isdigit() or len(length) > 18:
                self._refuse(400, "Content-Length must be a number.")
            request.length = int(length)
        coding = fields.get(b"transfer-encoding")
        if coding is not None:
            if length is not None or request.minor == 0 or coding.lower() != b"chunked":
                self._refuse(400, "The request's body is framed in a way that could be read twice.")
            request.chunked = True
        if not fields.get(b"host"):
            self._refuse(400, "A request must name its host.")


def without_upgrade(request: Request) -> bytes:
    """The head of this request, written anew as one that does not ask to become something else."""
    parts = [request.method, b" ", request.target, b" HTTP/1.%d\r\n" % request.minor, *request.plain]
    for name, value in request.fields.items():
        if name not in _ALSO_FORWARDED and name not in (b"connection", b"upgrade", b"http2-settings"):
            parts += (name, b": ", value, b"\r\n")
    parts.append(b"\r\n" if request.keep_alive else b"Connection: close\r\n\r\n")
    return b"".join(parts)


def _one_line_end(head: bytes) -> bool:
    ends = head.count(b"\r\n")
    return head.count(b"\n") == ends == head.count(b"\r") and b"\r\n " not in head and b"\r\n\t" not in head


def _check_connection(request: Request) -> None:
    """Take out what Connection names, and find out what the client wants to become."""
    request.upgrade = b""
    request.keep_alive = request.minor == 1
    connection = request.fields.get(b"connection")
    if connection is None:
        return
    tokens = _tokens(connection)
    if b"close" in tokens:
        request.keep_alive = False
    if b"upgrade" in tokens:
        request.upgrade = request.fields.get(b"upgrade", b"").lower()
    if tokens - _HOP_BY_HOP_SAFE:
        request.plain = without(request.plain, tokens)


def _tokens(connection: bytes) -> Set[bytes]:
    named = connection.lower()
    if named in _HOP_BY_HOP_SAFE:  # nearly always one word
        return {named}
    return {token.strip(b" \t") for token in named.split(b",")}


def without(plain: list[bytes], names: Set[bytes]) -> list[bytes]:
    """These headers, as in `plain`, but for those names (lower case)."""
    kept: list[bytes] = []
    for at in range(0, len(plain), 4):
        if plain[at].lower() not in names:
            kept += plain[at : at + 4]
    return kept


class Response:
    """One response's head, as `Request`. `length` is None where the body is chunked or ends with the stream."""

    __slots__ = ("chunked", "cookies", "fields", "keep_alive", "length", "plain", "status")

    status: int
    fields: dict[bytes, bytes]
    plain: list[bytes]
    cookies: list[bytes]
    length: int | None
    chunked: bool
    keep_alive: bool

    @property
    def bodiless(self) -> bool:
        return self.status in (204, 304) or self.status < 200


class ResponseReader:
    """Reads one whole response head at a time."""

    def __init__(self) -> None:
        self._fields: dict[bytes, bytes] = {}
        self._plain: list[bytes] = []
        self._cookies: list[bytes] = []
        self._fault = False
        self._complete = False

    def read(self, head: bytes) -> Response:
        """What this head says. Raises BadResponse where it is not strictly HTTP/1."""
        self._fields, self._plain, self._cookies = {}, [], []
        self._fault = self._complete = False
        parser = httptools.HttpResponseParser(self)
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise BadResponse(str(error)) from None
        response = Response()
        response.status = parser.get_status_code()
        response.fields, response.plain, response.cookies = self._fields, self._plain, self._cookies
        self._check(response, head)
        return response

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        if key in _RESPONSE_FIELDS:
            if key in self._fields and key in _RESPONSE_SINGLE:
                self._fault = True
            self._fields[key] = value.strip(b" \t") if key not in self._fields else self._fields[key] + b", " + value
        elif key == b"set-cookie":
            self._cookies.append(value)
        else:
            self._plain += (name, b": ", value, b"\r\n")

    def on_headers_complete(self) -> None:
        self._complete = True

    def _check(self, response: Response, head: bytes) -> None:
        if self._fault or not self._complete or not _one_line_end(head) or head[:7] != b"HTTP/1.":
            raise BadResponse("ambiguous head")
        if response.status not in STATUS_LINE:
            raise BadResponse("no such status")
        _check_response_framing(response)
        response.keep_alive = head[7:8] == b"1"
        connection = response.fields.get(b"connection")
        if connection is not None:
            tokens = _tokens(connection)
            response.keep_alive = response.keep_alive and b"close" not in tokens
            if tokens - _HOP_BY_HOP_SAFE:
                response.plain = without(response.plain, tokens)


def _check_response_framing(response: Response) -> None:
    fields = response.fields
    length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
    response.length, response.chunked = None, False
    if coding is not None:
        if length is not None or coding.lower() != b"chunked":
            raise BadResponse("a body framed twice")
        response.chunked = True
    elif length is not None:
        if not length.isdigit() or len(length) > 18:
            raise BadResponse("Content-Length is no number")
        response.length = int(length)


class Chunks:
    """Takes a chunked body apart. Sizes are plain hexadecimal, lines end in CRLF; extensions and trailers are dropped.

    Feed what arrives and get the pieces of the body in it; `done` says that its end was seen and `rest` is what came
    behind it. Raises ValueError where the framing is wrong.
    """

    __slots__ = ("_left", "_line", "_tail", "_trailer", "done", "rest")

    def __init__(self) -> None:
        self._left = 0  # bytes of the running chunk still to come
        self._tail = b""  # what must follow them
        self._line = b""
        self._trailer = 0
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        pieces: list[bytes] = []
        if self._line:
            data, self._line = self._line + data, b""
        at, size = 0, len(data)
        while at < size and not self.done:
            if self._left or self._tail:
                at = self._take(data, at, pieces)
                continue
            end = data.find(b"\r\n", at, at + self._line_limit)
            if end < 0:
                self._keep(data[at:])
                return pieces
            self._read_line(data[at:end])
            at = end + 2
        if self.done:
            self.rest = data[at:]
        return pieces

    @property
    def _line_limit(self) -> int:
        return TRAILER_LIMIT if self._trailer else CHUNK_LINE_LIMIT

    def _take(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        if self._left:
            end = min(len(data), at + self._left)
            pieces.append(data[at:end])
            self._left -= end - at
            return end
        here = data[at : at + len(self._tail)]
        if not self._tail.startswith(here):
            raise ValueError("a chunk does not end where it should")
        self._tail = self._tail[len(here) :]
        return at + len(here)

    def _keep(self, line: bytes) -> None:
        if len(line) >= self._line_limit or b"\n" in line or b"\r" in line[:-1]:
            raise ValueError("a chunk's line is too long or ends wrongly")
        self._line = line

    def _read_line(self, line: bytes) -> None:
        if b"\n" in line or b"\r" in line or b"\0" in line:
            raise ValueError("a chunk's line ends wrongly")
        if self._trailer:
            self._trailer += len(line) + 2
            self.done = not line
            if self._trailer > TRAILER_LIMIT:
                raise ValueError("trailers are too long")
            return
        digits = line.partition(b";")[0]
        if not digits or len(digits) > 16 or digits.strip(b"0123456789abcdefABCDEF"):
            raise ValueError("a chunk's size is no number")
        self._left = int(digits, 16)
        if self._left:
            self._tail = b"\r\n"
        else:
            self._trailer = 1


def in_chunks(pieces: list[bytes]) -> list[bytes]:
    """These pieces as one chunk; nothing for nothing, as an empty chunk would be the end."""
    size = sum(map(len, pieces))
    return [b"%x\r\n" % size, *pieces, b"\r\n"] if size else []
