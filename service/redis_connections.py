"""Connections that outlive a failover: they find the master anew, and take "not now" as a lost connection.

redis-py's own connections ask Sentinel only when a client takes one from its pool: one that breaks during a
command goes back to the host it had, for as many tries as its client makes. These ask whenever they connect.
And what a demoted master or one without replicas answers (`READONLY`, `NOREPLICAS`) passes by itself, so
clients try again as they do when a connection is lost.
https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio
from redis import connection as blocking
from redis.asyncio import connection as aio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from service.tasks import cancel_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.redis_address import RedisAddress

ASK_SECONDS = 1.0
"""How long one Sentinel may take, where Sentinels are asked one after the other."""

_SILENT = "no Sentinel answers"
_NOT_NOW = ("READONLY", "NOREPLICAS", "MASTERDOWN", "MISCONF")


class NotNowError(RedisConnectionError):
    """Redis refuses for a reason that passes: it is no longer the master, or misses replicas or its disk."""


class NoMasterError(OSError):
    """No Sentinel names a master; the message says why. As an OSError it is one failed try to connect."""


def _is_not_now(error: ResponseError) -> bool:
    # redis-py takes the code off the errors that it has a class for
    return isinstance(error, redis.exceptions.ReadOnlyError) or str(error).startswith(_NOT_NOW)


_PACKER = blocking.HiredisRespSerializer()


class _Aio(aio.AbstractConnection):
    """An asyncio connection that is given up when Redis says "not now", and packs commands in C."""

    def pack_command(self, *args: Any) -> list[bytes]:
        # as redis-py's blocking connections do it; its asyncio ones have a loop in Python
        packed: list[bytes] = _PACKER.pack(*args)
        return packed

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except ResponseError as error:
            if not _is_not_now(error):
                raise
            await self.disconnect(nowait=True)
            raise NotNowError(str(error)) from error


class _AioOfMaster(_Aio):
    """An asyncio connection to whichever server is the master when it connects."""

    def __init__(self, *, master: Master, **options: Any) -> None:
        self._master = master
        super().__init__(**options)

    async def _connect(self) -> None:
        # looking for the master counts: whoever waits for the connection has only so much time
        async with asyncio.timeout(self.socket_connect_timeout):
            self.host, self.port = await self._master.find()
            await super()._connect()  # type: ignore[no-untyped-call,safe-super]  # the one called is a class's that follows


class _Blocking(blocking.AbstractConnection):
    """A blocking connection that is given up when Redis says "not now"."""

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)
        except ResponseError as error:
            if not _is_not_now(error):
                raise
            self.disconnect()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            raise NotNowError(str(error)) from error


class _BlockingOfMaster(_Blocking):
    """A blocking connection to whichever server is the master when it connects."""

    def __init__(self, *, master: Master, **options: Any) -> None:
        self._master = master
        super().__init__(**options)

    def _connect(self) -> Any:
        self.host, self.port = self._master.find_blocking()
        return super()._connect()  # type: ignore[no-untyped-call,safe-super]  # the one called is a class's that follows


class AioTcp(_Aio, aio.Connection):
    """To one server."""


class AioTls(_Aio, aio.SSLConnection):
    """To one server, with TLS."""


class AioUnix(_Aio, aio.UnixDomainSocketConnection):
    """To one server's socket."""


class AioMaster(_AioOfMaster, aio.Connection):
    """To the master that Sentinels name."""


class AioMasterTls(_AioOfMaster, aio.SSLConnection):
    """To the master that Sentinels name, with TLS."""


class BlockingTcp(_Blocking, blocking.Connection):
    """To one server."""


class BlockingTls(_Blocking, blocking.SSLConnection):
    """To one server, with TLS."""


class BlockingUnix(_Blocking, blocking.UnixDomainSocketConnection):
    """To one server's socket."""


class BlockingMaster(_BlockingOfMaster, blocking.Connection):
    """To the master that Sentinels name."""


class BlockingMasterTls(_BlockingOfMaster, blocking.SSLConnection):
    """To the master that Sentinels name, with TLS."""


@dataclass(frozen=True, slots=True)
class Master:
    """Looks for the master, each time anew: it keeps no connection and remembers nothing.

    Attributes:
        address: with Sentinels.
        tls: redis-py's TLS options, used for Sentinels as for the master; None without TLS.
    """

    address: RedisAddress
    tls: Mapping[str, Any] | None

    async def find(self) -> tuple[str, int]:
        """The master's host and port: the first good answer of any Sentinel; the caller limits the time.

        Raises:
            NoMasterError: none of them names one.
        """
        asked = [asyncio.ensure_future(self._ask(*one)) for one in self.address.sentinels]
        problems = []
        try:
            for answer in asyncio.as_completed(asked):
                found = await answer
                if not isinstance(found, str):
                    return found
                problems.append(found)
        finally:
            await cancel_all(asked)
        raise NoMasterError(_why(problems))

    def find_blocking(self) -> tuple[str, int]:
        """The master's host and port; Sentinels are asked one after the other, a second each.

        Raises:
            NoMasterError: none of them names one.
        """
        problems = []
        for host, port in self.address.sentinels:
            pool = blocking.ConnectionPool(
                **self._options(host, port, retry=Retry(NoBackoff(), 0)),
                connection_class=blocking.Connection if self.tls is None else blocking.SSLConnection,
            )
            with redis.Redis.from_pool(pool) as sentinel:
                try:
                    found = self._judge(sentinel.sentinel_masters())
                except RedisError as error:
                    found = _problem(error)
            if not isinstance(found, str):
                return found
            problems.append(found)
        raise NoMasterError(_why(problems))

    async def _ask(self, host: str, port: int) -> tuple[str, int] | str:
        """The master according to one Sentinel, or why it names none."""
        pool = aio.ConnectionPool(
            **self._options(host, port, retry=AsyncRetry(NoBackoff(), 0)),
            connection_class=aio.Connection if self.tls is None else aio.SSLConnection,
        )
        sentinel = redis.asyncio.Redis.from_pool(pool)
        try:
            return self._judge(await sentinel.sentinel_masters())
        except RedisError as error:
            return _problem(error)
        finally:
            # one that answers second may be cancelled here; its connection must be closed all the same
            await asyncio.shield(sentinel.aclose())

    def _options(self, host: str, port: int, *, retry: Retry | AsyncRetry) -> dict[str, Any]:
        return {
            "host": host,
            "port": port,
            "username": self.address.sentinel_username,
            "password": self.address.sentinel_password,
            "socket_timeout": ASK_SECONDS,
            "socket_connect_timeout": ASK_SECONDS,
            "retry": retry,
            **(self.tls or {}),
        }

    def _judge(self, answer: Any) -> tuple[str, int] | str:
        masters: Mapping[str, Mapping[str, Any]] = answer
        state = masters.get(self.address.service)
        if state is None:
            known = ", ".join(sorted(masters)) or "none"
            return f"Sentinel watches no service named {self.address.service}; it knows: {known}"
        if not state["is_master"] or state["is_sdown"] or state["is_odown"]:
            return "the master is down and Sentinel has not promoted a replica yet"
        return str(state["ip"]), int(state["port"])


def _problem(error: RedisError) -> str:
    if isinstance(error, redis.AuthenticationError | redis.exceptions.NoPermissionError):
        return "Sentinel refuses our user or password: see sentinel_username and sentinel_password"
    return f"{_SILENT} ({trouble(error)})"


def _why(problems: list[str]) -> str:
    # what one that answers says is worth more than another one's silence
    return min(problems, key=lambda one: one.startswith(_SILENT))


def trouble(error: BaseException) -> str:
    """Why Redis cannot be used, for people: what an error or one that led to it tells, else its kind.

    Neither user nor password are in it.
    """
    one: BaseException | None = error
    while one is not None:
        words = _words(one)
        if words is not None:
            return words
        one = one.__cause__ or one.__context__
    return type(error).__name__


def _words(error: BaseException) -> str | None:
    import ssl  # noqa: PLC0415  only where something went wrong

    match error:
        case NoMasterError():
            return str(error)
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {error.verify_message.rstrip('.')}; see ssl_ca_certs"
        case ssl.SSLError():
            return f"no TLS with it ({error.reason or 'SSLError'}): see the scheme and the files in the URL"
        case FileNotFoundError():
            return "no such file: see the paths in the URL"
        case redis.AuthenticationError() | redis.exceptions.NoPermissionError():
            return f"it refuses our user or password: {type(error).__name__}"
    return None
