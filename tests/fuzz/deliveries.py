"""Inputs for the receiver, invented from seeds by chance. Pure but for the random numbers passed in."""

from __future__ import annotations

import hashlib
import hmac
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fuzz.text import Literal, Node, Object, copied, parsed, written

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

Header = tuple[bytes, bytes]

GENUINE_SHARE = 0.85
WELL_FORMED_SHARE = 0.8
MOST_PIECES = 6

DEPTHS = (*(3, 50) * 5, 500, 2000, 20_000)
LENGTHS = (*(0, 1, 199, 200, 201) * 3, 5000, 100_000)
CUSTOM_FIELDS = (*(1, 10) * 10, 300, 3000)
REPEATS = (*(1, 2) * 20, 500)

LITERALS = (
    *(
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"-1e-999",
        b"-0",
        b"0.0",
        b"00",
        b"+1",
        b".5",
        b"1.",
        b"0x10",
    ),
    *(b"9" * 25, b"9" * 400, b"-" + b"9" * 5000, b"1" + b"0" * 400 + b".5", b"9223372036854775808"),
    *(
        b'"\\ud800"',
        b'"\\udfff\\ud800"',
        b'"\\u0000"',
        b'"\\x41"',
        b'"\xff\xfe"',
        b'"\xed\xa0\x80"',
        b'"\t\n"',
    ),
    *(
        b"tru",
        b"True",
        b"None",
        b"undefined",
        b"'x'",
        b"[,]",
        b"{,}",
        b'{"a"}',
        b"//x",
        b"\xef\xbb\xbf{}",
        b"",
    ),
    *(b"null", b"true", b"false", b"0", b"-1", b'""', b"[]", b"{}", b"[[]]", b'{"":{}}'),
)
TEXTS = (
    *(
        "",
        " ",
        "\n",
        "\0",
        "lead_1 lead_2",
        "a:b",
        "*",
        "enrich:*",
        "../..",
        "%00",
        "{}",
        "💥" * 50,
        "\u202eabc",
    ),
    *(
        "lead",
        "contact",
        "opportunity",
        "activity.note",
        "created",
        "updated",
        "merged",
        "deleted",
        "url",
        "title",
    ),
    *("2026-13-45T99:99:99", "2026-10-14T09:30:12", "0001-01-01T00:00:00+14:00", "9" * 30, "ev_1\r\nx: y"),
)
TOKENS = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"\\",
        b"\\u",
        b"\\ud800",
        b"null",
        b"NaN",
        b"1e999",
        b"\x00",
    ),
    *(
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b'"event":',
        b'"data":',
        b'"id":',
        b"/*",
        b" " * 64,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One input.

    Attributes:
        body: the request's.
        headers: the request's, as the server hands them on.
        genuine: signed with our key, and sent as JSON.
        pieces: how the body is cut up on its way.
        cut: the sender goes before the body has ended.
    """

    body: bytes
    headers: tuple[Header, ...]
    genuine: bool
    pieces: tuple[bytes, ...]
    cut: bool = False


class Inventor:
    """Makes deliveries; the same random numbers make the same ones.

    Args:
        random: where chance comes from.
        seeds: bodies to start from; those that are no JSON are only mangled.
        key: what genuine deliveries are signed with.
        timestamp: Unix seconds of genuine signatures.
    """

    def __init__(self, *, random: Random, seeds: Sequence[bytes], key: bytes, timestamp: int) -> None:
        self._random = random
        self._seeds = tuple(seeds)
        self._key = key
        self._timestamp = timestamp
        self._trees = tuple(tree for tree in map(_parsed, seeds) if tree is not None)
        self._changes: tuple[Callable[[Node], None], ...] = (
            *(self._replace,) * 4,
            *(self._rename_key, self._drop, self._repeat, self._add, self._fresh_ids, self._custom_fields),
        )

    def delivery(self) -> Delivery:
        """The next one."""
        body = self.body()
        genuine = self._random.random() < GENUINE_SHARE
        headers = self._signed(body) if genuine else self._forged(body)
        pieces = self._pieces(body)
        return Delivery(
            body=body, headers=headers, genuine=genuine, pieces=pieces, cut=self._random.random() < 0.01
        )

    def body(self) -> bytes:
        """A body: well-formed but odd, mangled, or both."""
        chance = self._random
        if chance.random() > WELL_FORMED_SHARE:
            return self._mangled(chance.choice(self._seeds))
        tree = copied(chance.choice(self._trees))
        if chance.random() < 0.7:
            self._fresh_ids(tree)
        for _ in range(chance.choice((0, 1, 1, 2, 3))):
            chance.choice(self._changes)(tree)
        body = written(tree)
        return self._mangled(body) if chance.random() < 0.15 else body

    def request(self) -> bytes:
        """A whole request as bytes, whose head is odd."""
        chance = self._random
        body = self.body()
        headers = dict(self._signed(body))
        if chance.random() < 0.9:
            headers[b"connection"] = b"close"
        if chance.random() < 0.5:
            headers[b"transfer-encoding"] = chance.choice(
                (b"chunked", b"chunked", b"gzip, chunked", b"\xff", b"")
            )
            body = self._chunked(body)
        if chance.random() < 0.7:
            headers[b"content-length"] = chance.choice(
                (b"%d" % len(body),) * 5
                + (b"0", b"-1", b"1e3", b"9" * 30, b"%d" % (len(body) + 1), b" 5", b"")
            )
        lines = [b"POST /webhooks/close HTTP/1.1", b"host: x", *(b"%b: %b" % one for one in headers.items())]
        for _ in range(chance.choice((0, 0, 1, 2))):
            place = chance.randrange(len(lines))
            lines.insert(
                place, chance.choice((lines[place], b"", b" folded", self._odd_header(), self._noise(40)))
            )
        raw = b"\r\n".join(lines) + b"\r\n\r\n" + body
        return self._mangled(raw, most=len(raw) - len(body)) if chance.random() < 0.4 else raw

    # trees

    def _replace(self, tree: Node) -> None:
        for holder, place in self._places(tree, count=1):
            _put(holder, place, self._odd())

    def _rename_key(self, tree: Node) -> None:
        for holder, place in self._places(tree, count=1):
            if isinstance(holder, Object):
                _, value = holder.members[place]
                holder.members[place] = (self._odd_text(), value)

    def _drop(self, tree: Node) -> None:
        for holder, place in self._places(tree, count=1):
            del (holder.members if isinstance(holder, Object) else holder)[place]

    def _repeat(self, tree: Node) -> None:
        for holder, place in self._places(tree, count=1):
            inside = holder.members if isinstance(holder, Object) else holder
            branch = isinstance(_inside(holder)[place], (Object, list))
            inside.extend([inside[place]] * (1 if branch else self._random.choice(REPEATS)))

    def _add(self, tree: Node) -> None:
        for holder, _ in self._places(tree, count=1):
            if isinstance(holder, Object):
                holder.members.append((self._odd_text(), self._odd()))
            else:
                holder.append(self._odd())

    def _fresh_ids(self, tree: Node) -> None:
        """Another event about another object, so that it is planned and no duplicate."""
        event = _member(tree, "event")
        name = "".join(self._random.choices(string.ascii_letters, k=12))
        for key, prefix in (("id", "ev_"), ("object_id", "lead_"), ("lead_id", "lead_")):
            for place, (found, _) in enumerate(event.members if isinstance(event, Object) else ()):
                if found == key:
                    event.members[place] = (key, prefix + name)

    def _custom_fields(self, tree: Node) -> None:
        data = _member(_member(tree, "event"), "data")
        if isinstance(data, Object):
            count = self._random.choice(CUSTOM_FIELDS)
            data.members.extend((f"custom.cf_{number}", self._odd_text()[:20]) for number in range(count))

    def _places(self, tree: Node, *, count: int) -> list[tuple[Node, int]]:
        """Places inside, each the holder and an index; those near the top as likely as the many below."""
        found = []
        for _ in range(count):
            holder, place = None, 0
            node = tree
            while isinstance(node, (Object, list)) and (size := len(_inside(node))):
                holder, place = node, self._random.randrange(size)
                node = _inside(node)[place]
                if self._random.random() < 0.35:
                    break
            if holder is not None:
                found.append((holder, place))
        return found

    # odd values

    def _odd(self) -> Node:
        chance = self._random
        match chance.randrange(6):
            case 0:
                return self._odd_text()
            case 1:
                opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")))
                depth = chance.choice(DEPTHS)
                return Literal(opening * depth + b"1" + closing * chance.choice((depth, depth, depth - 1)))
            case 2:
                return chance.choice(
                    (chance.randint(-(2**70), 2**70), chance.random() * 10 ** chance.randint(-300, 300))
                )
            case 3:
                return copied(chance.choice(self._trees))
            case _:
                return Literal(chance.choice(LITERALS))

    def _odd_text(self) -> str:
        chance = self._random
        match chance.randrange(3):
            case 0:
                return chance.choice(("a", "é", "\0", "💥", '"', "\ud800")) * chance.choice(LENGTHS)
            case 1:
                return "".join(chr(chance.randrange(0x11_0000)) for _ in range(chance.randrange(12)))
            case _:
                return chance.choice(TEXTS)

    # bytes

    def _mangled(self, raw: bytes, *, most: int | None = None) -> bytes:
        """Bytes changed, left out, repeated and put in, before the place `most`."""
        chance, work = self._random, bytearray(raw)
        for _ in range(chance.choice((1, 1, 2, 5, 30))):
            at = chance.randrange(min(len(work), most or len(work)) + 1)
            until = at + chance.choice((0, 1, 1, 4, 100))
            match chance.randrange(6):
                case 0:
                    work[at : at + 1] = bytes([chance.randrange(256)])
                case 1:
                    del work[at:until]
                case 2:
                    work[at:at] = work[at:until] * chance.choice((1, 2, 50))
                case 3:
                    work[at:at] = chance.choice(TOKENS)
                case 4:
                    work[at:at] = self._noise(20)
                case _ if chance.random() < 0.2:
                    del work[at:]
        return bytes(work)

    def _noise(self, most: int) -> bytes:
        return self._random.randbytes(self._random.randrange(most))

    def _pieces(self, body: bytes) -> tuple[bytes, ...]:
        cuts = sorted(
            self._random.randrange(len(body) + 1) for _ in range(self._random.choice((0, 0, 1, MOST_PIECES)))
        )
        return tuple(body[start:end] for start, end in zip((0, *cuts), (*cuts, len(body)), strict=True))

    def _chunked(self, body: bytes) -> bytes:
        chance = self._random
        sizes = (b"%x", b"%x", b"%x", b"%X;a=b", b"0%x", b"-%x", b"%xg")
        chunks = [
            chance.choice(sizes) % len(one) + b"\r\n" + one + b"\r\n" for one in self._pieces(body) if one
        ]
        return b"".join(chunks) + chance.choice((b"0\r\n\r\n",) * 4 + (b"0\r\nx: y\r\n\r\n", b"0\r\n", b""))

    # headers

    def _signed(self, body: bytes) -> tuple[Header, ...]:
        timestamp = b"%d" % self._timestamp
        kinds = (b"application/json",) * 3 + (b"Application/JSON; charset=latin-9",)
        return (
            (b"content-type", self._random.choice(kinds)),
            (b"content-length", b"%d" % len(body)),
            (b"close-sig-hash", self._mac(timestamp, body)),
            (b"close-sig-timestamp", timestamp),
        )

    def _forged(self, body: bytes) -> tuple[Header, ...]:
        """Headers that prove nothing, or are no JSON's."""
        chance = self._random
        timestamp = b"%d" % self._timestamp
        good = self._mac(timestamp, body)
        wrong = bytes([good[0] ^ 1]) + good[1:]
        kind, given, at = b"application/json", wrong, timestamp
        match chance.randrange(6):
            case 0:
                given = chance.choice(
                    (good[:-1], good + b"0", b"", b"\xff" * 64, b"0" * 64, b"g" * 64, good[::-1])
                )
            case 1:
                at = chance.choice(
                    (b"", b"-1", b"0", b"9" * 20, b"9" * 21, b"1e9", b"\xff", b" 1", timestamp + b"0")
                )
                given = good
            case 2:
                given = (
                    hmac.new(self._random.randbytes(32), timestamp + body, hashlib.sha256)
                    .hexdigest()
                    .encode()
                )
            case 3:
                kind, given = chance.choice((b"", b"text/plain", b"application/jsonx", b"\xff")), good
            case 4:
                given = self._mac(timestamp, body + b" ")
            case _:
                pass
        headers = [(b"content-type", kind), (b"close-sig-hash", given), (b"close-sig-timestamp", at)]
        if chance.random() < 0.3:
            del headers[chance.randrange(3)]
        headers += [(b"x-odd", self._noise(60)) for _ in range(chance.randrange(3))]
        chance.shuffle(headers)
        return tuple(headers)

    def _odd_header(self) -> bytes:
        names = (
            b"host",
            b"expect",
            b"connection",
            b"upgrade",
            b"content-length",
            b"content-type",
            b"",
            b"x" * 300,
        )
        values = (
            b"",
            b"100-continue",
            b"close",
            b"websocket",
            b"0",
            b"a" * 70_000,
            b"\xff",
            b"identity",
            b"chunked",
        )
        return self._random.choice(names) + b": " + self._random.choice(values)

    def _mac(self, timestamp: bytes, body: bytes) -> bytes:
        return hmac.new(self._key, timestamp + body, hashlib.sha256).hexdigest().encode()


def _parsed(body: bytes) -> Node | None:
    try:
        return parsed(body)
    except (ValueError, RecursionError):
        return None


def _member(node: Node, name: str) -> Node:
    members = node.members if isinstance(node, Object) else ()
    return next((value for key, value in members if key == name), None)


def _inside(node: Node) -> list[Node]:
    return [value for _, value in node.members] if isinstance(node, Object) else node


def _put(holder: Node, place: int, value: Node) -> None:
    if isinstance(holder, Object):
        holder.members[place] = (holder.members[place][0], value)
    else:
        holder[place] = value
