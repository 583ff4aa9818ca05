"""A master, two replicas and three Sentinels as real processes on this machine, for a failover that is one.

The server of `server_binary` plays all parts: Valkey and Redis are Sentinels where they are told so.
"""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import redis
from stack_parts import HeldPort
from waiting import wait_until

from service.embedded_redis import server_binary

if TYPE_CHECKING:
    from pathlib import Path

SERVICE = "mymaster"
QUORUM = 2
DOWN_AFTER_MS = 3000
"""A busy machine may let a healthy master stand still for a while."""
STOP_SECONDS = 30.0


@dataclass
class SentinelBox:
    """One service watched by Sentinels. A context manager; leaving ends all processes."""

    directory: Path
    replicas: int = 2
    sentinels: int = 3
    password: str = ""
    sentinel_password: str = ""
    ports: list[int] = field(default_factory=list)
    sentinel_ports: list[int] = field(default_factory=list)
    _processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    _clients: list[redis.Redis] = field(default_factory=list)
    _held_ports: list[HeldPort] = field(default_factory=list)

    def url(self, service: str = SERVICE) -> str:
        """For `REDIS_URL`."""
        user = f":{self.password}@" if self.password else ""
        option = f"?sentinel_password={self.sentinel_password}" if self.sentinel_password else ""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinel_ports)
        return f"redis+sentinel://{user}{hosts}/{service}/0{option}"

    def client(self, port: int) -> redis.Redis:
        """A client of one server."""
        return self._client(port, self.password)

    def sentinel(self, port: int) -> redis.Redis:
        """A client of one Sentinel."""
        return self._client(port, self.sentinel_password)

    def master_port(self) -> int:
        """Which server the Sentinels call the master."""
        return wait_until(self._named_master)

    def _named_master(self) -> int | None:
        with contextlib.suppress(redis.RedisError):
            # any that is left will do
            found = self.sentinel(self.sentinel_ports[-1]).sentinel_get_master_addr_by_name(SERVICE)
            return int(found[1]) if found else None
        return None

    def role(self, port: int) -> str | None:
        """Whether a server is a master or a replica; None while it does not say."""
        return self._replication(self.client(port)).get("role")

    def demote_master(self) -> None:
        """Have another server promoted although the master is well."""
        wait_until(self._begins_to_fail_over)

    def _begins_to_fail_over(self) -> bool:
        # refused while no replica is known to be good
        with contextlib.suppress(redis.RedisError):
            return bool(self.sentinel(self.sentinel_ports[0]).sentinel_failover(SERVICE))
        return False

    def kill(self, port: int) -> None:
        """Kill a server or Sentinel without notice."""
        self._processes[port].kill()
        self._processes[port].wait(STOP_SECONDS)

    def send(self, port: int, number: int) -> None:
        """Send a server or Sentinel a signal."""
        self._processes[port].send_signal(number)

    def process(self, port: int) -> subprocess.Popen[bytes]:
        return self._processes[port]

    def fail_over(self) -> int:
        """Kill the master and wait for another one; its port."""
        before = self.master_port()
        self.kill(before)
        wait_until(lambda: self.master_port() != before)
        return self.master_port()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        for client in self._clients:
            client.close()
        for process in self._processes.values():
            process.kill()
            process.wait(STOP_SECONDS)
        for port in self._held_ports:
            port.close()

    def _port(self) -> int:
        self._held_ports.append(HeldPort())
        return self._held_ports[-1].number

    def _start(self) -> None:
        for number in range(1 + self.replicas):
            self._start_server(number)
        master = self.client(self.ports[0])
        wait_until(lambda: self._replication(master).get("connected_slaves") == self.replicas)
        # Sentinels ask for replicas at once, and then only every ten seconds
        for number in range(self.sentinels):
            self._start_sentinel(number)
        for port in self.sentinel_ports:
            wait_until(lambda port=port: self._knows_all(port))

    def _start_server(self, number: int) -> None:
        port = self._port()
        data = self.directory / f"server-{number}"
        data.mkdir()
        of_master = ["--replicaof", "127.0.0.1", str(self.ports[0])] if self.ports else []
        secret = ["--requirepass", self.password, "--masterauth", self.password] if self.password else []
        self._run(
            port,
            *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(data), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--repl-diskless-sync-delay", "0"),
            *of_master,
            *secret,
        )
        self.ports.append(port)

    def _start_sentinel(self, number: int) -> None:
        port = self._port()
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {self.directory}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.ports[0]} {QUORUM}",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {SERVICE} 5000",
        ]
        if self.password:
            lines.append(f"sentinel auth-pass {SERVICE} {self.password}")
        if self.sentinel_password:
            lines += [
                f"requirepass {self.sentinel_password}",
                f"sentinel sentinel-pass {self.sentinel_password}",
            ]
        path = self.directory / f"sentinel-{number}.conf"
        path.write_text("\n".join(lines) + "\n")
        self._run(port, str(path), "--sentinel")
        self.sentinel_ports.append(port)

    def _run(self, port: int, *arguments: str) -> None:
        with (self.directory / f"{port}.log").open("ab") as log:
            self._processes[port] = subprocess.Popen(
                [server_binary(), *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def _client(self, port: int, password: str) -> redis.Redis:
        client = redis.Redis(port=port, password=password or None, socket_timeout=2.0)
        self._clients.append(client)
        return client

    def _replication(self, client: redis.Redis) -> dict[str, Any]:
        with contextlib.suppress(redis.RedisError):
            return client.info("replication")
        return {}

    def _knows_all(self, port: int) -> bool:
        with contextlib.suppress(redis.RedisError):
            known = self.sentinel(port).sentinel_master(SERVICE)
            # the last one is what a promotion needs
            return (
                known["num-slaves"] == self.replicas
                and known["num-other-sentinels"] == self.sentinels - 1
                and not known["is_disconnected"]
            )
        return False
