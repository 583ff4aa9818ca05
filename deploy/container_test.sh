#!/usr/bin/env bash
# shellcheck disable=SC2329  # functions are called by name, through check and within
#
# Builds the image without a Docker engine and shows that it works: as root, with Debian's tools.
#
#   deploy/container_test.sh           FROM a local stand-in for python:3.13-slim, made of Debian's own packages
#   deploy/container_test.sh --pull    FROM the real one, where a container registry can be reached
#   deploy/container_test.sh --check   only look whether its tools are there; exit 2 and name them where not
#   deploy/container_test.sh --purge   remove what it keeps for the next run, in /var/tmp/close-enrich-container
#
#   apt-get install -y --no-install-recommends buildah podman runc conmon netavark debootstrap iproute2 curl redis-server
#
# Everything runs in a network namespace of its own that has nothing but loopback: a Redis with a password, the sandbox
# as Close, web and worker. The last line is "N passed, N failed".
set -euo pipefail

project=$(cd "$(dirname "$0")/.." && pwd)
store=${CONTAINER_STORE:-/var/tmp/close-enrich-container}
base=docker.io/library/python:3.13-slim
image=localhost/close-enrich:test
most_megabytes=200
user=10001

check_only=no
case "${1:-}" in
  '') pull=no ;;
  --pull) pull=yes ;;
  --check) check_only=yes ;;
  --purge)
    awk -v store="$store/" 'index($2, store) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount
    rm -rf "$store"
    exit
    ;;
  *)
    sed -n '4,14s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

missing=()
for tool in buildah podman runc conmon debootstrap ip curl redis-server; do
  command -v $tool >/dev/null || missing+=("$tool")
done
if [ ${#missing[@]} -gt 0 ] || [ "$(id -u)" != 0 ]; then
  echo "needs root, and: ${missing[*]:-nothing else} (see the head of this script)" >&2
  exit 2
fi
[ "$check_only" = no ] || exit 0

# --- a store of its own, and an engine that expects no systemd ---------------------------------------------------
mkdir -p "$store/tmp"
limit=$(ulimit -Hn)
[ "$limit" != unlimited ] || limit=65536
cat >"$store/containers.conf" <<X
[containers]
default_ulimits = ["nofile=$limit:$limit", "nproc=4096:4096"]
[network]
network_backend = "netavark"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "$store/libpod"
X
driver=${CONTAINER_DRIVER:-overlay}
printf '[storage]\ndriver = "%s"\ngraphroot = "%s/root"\nrunroot = "%s/run"\n' "$driver" "$store" "$store" >"$store/storage.conf"
export CONTAINERS_CONF=$store/containers.conf CONTAINERS_STORAGE_CONF=$store/storage.conf TMPDIR=$store/tmp

id=close-enrich-$$
work=$(mktemp -d "$store/tmp/work.XXXXXX")
redis_pid=
passed=0
failed=0

# podman grumbles about systemd; a file, as a container's monitor would keep a pipe open
quiet() {
  local code=0
  "$@" 2>"$work/stderr" || code=$?
  [ $code = 0 ] || cat "$work/stderr" >&2
  return $code
}
check() { # WORDS COMMAND...
  local words=$1
  shift
  if "$@" >/dev/null; then
    passed=$((passed + 1))
    echo "ok   $words"
  else
    failed=$((failed + 1))
    echo "FAIL $words"
  fi
}
finish() {
  echo "$passed passed, $failed failed"
  [ "$failed" = 0 ]
  exit
}
clean_up() {
  local code=$?
  trap - EXIT
  for name in web worker sandbox; do podman rm -f -t 0 "$id-$name" >/dev/null 2>&1 || true; done
  if [ -n "$redis_pid" ]; then kill "$redis_pid" 2>/dev/null && wait "$redis_pid" 2>/dev/null || true; fi
  ip netns del "$id" 2>/dev/null || true
  rm -rf "$work"
  exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# --- what the Dockerfile stands on -------------------------------------------------------------------------------
make_base() {
  local mirror root=$store/base
  # wherever this machine's own packages come from; $(…) is apt's, not the shell's
  # shellcheck disable=SC2016
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v -e security -e updates | head -n 1)
  rm -rf "$root"
  mkdir -p "$root"
  chmod 755 "$root"
  debootstrap --variant=minbase \
    --include=ca-certificates,netbase,tzdata,python3.13,python3.13-venv,python3-pip \
    trixie "$root" "$mirror" >"$store/debootstrap.log" 2>&1 || {
    tail -n 20 "$store/debootstrap.log" >&2
    return 1
  }
  # as in the official image: python and pip in /usr/local/bin, no lists, caches or documents
  ln -s /usr/bin/python3.13 "$root/usr/local/bin/python3"
  ln -s python3 "$root/usr/local/bin/python"
  ln -s /usr/bin/pip3 "$root/usr/local/bin/pip"
  rm -rf "$root"/usr/lib/python3*/EXTERNALLY-MANAGED "$root"/var/lib/apt/lists/* "$root"/var/cache/* \
    "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/* "$root"/var/log/*
  local container
  container=$(buildah from scratch)
  buildah add -q "$container" "$root" / >/dev/null
  buildah config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin --cmd '["python3"]' "$container"
  buildah commit -q --format docker --rm "$container" "$base" >/dev/null
  rm -rf "$root"
}
began=$SECONDS
if [ "$pull" = yes ]; then
  quiet podman pull -q "$base" >/dev/null
elif ! podman image exists "$base" 2>/dev/null; then
  echo "--- makes a stand-in for $base"
  quiet make_base
fi
echo "--- base image: $((SECONDS - began)) s"

# --- build -------------------------------------------------------------------------------------------------------
# this machine's certificates are laid over the image's while it builds; nothing of them enters it
began=$SECONDS
if buildah bud --isolation chroot --pull-never --format docker --layers --ulimit "nofile=$limit:$limit" \
  --build-arg REVISION=tried-here --volume /etc/ssl/certs:/etc/ssl/certs:O -f "$project/deploy/Dockerfile" -t "$image" "$project" >"$work/build.log" 2>&1; then
  check "builds, in $((SECONDS - began)) s" true
else
  tail -n 25 "$work/build.log"
  check "builds" false
  finish
fi
inspect() { podman image inspect "$image" --format "$1" 2>/dev/null; }
megabytes=$(($(inspect '{{.Size}}') / 1000000))
base_megabytes=$(($(podman image inspect "$base" --format '{{.Size}}' 2>/dev/null) / 1000000))
check "image of $megabytes MB, $base_megabytes of it the base, is under $most_megabytes MB" test $megabytes -lt $most_megabytes
check "its user is a number other than root's" test "$(inspect '{{.Config.User}}')" = "$user:$user"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$project/pyproject.toml")
check "its label says version $version" test "$(inspect '{{index .Config.Labels "org.opencontainers.image.version"}}')" = "$version"
check "its label says of which revision it is" test "$(inspect '{{index .Config.Labels "org.opencontainers.image.revision"}}')" = tried-here

# --- run ---------------------------------------------------------------------------------------------------------
ip netns add "$id"
ip -n "$id" link set lo up
mkdir -p "$work/secrets" "$work/rules" "$work/redis"
chmod 755 "$work" "$work/secrets" "$work/rules"
password=$(od -An -N 24 -t x1 /dev/urandom | tr -d ' \n')
printf 'redis://:%s@127.0.0.1:6379/0\n' "$password" >"$work/secrets/redis_url"
printf 'api_sandbox0000000000000.demo\n' >"$work/secrets/close_api_key"
cat >"$work/rules/rules.yaml" <<'X'
version: 1
defaults: {settle: 0s}
rules:
  - {name: Industry, object: lead, field: Industry}
X
chmod 444 "$work"/secrets/* "$work"/rules/*
printf 'requirepass %s\n' "$password" >"$work/redis.conf"
ip netns exec "$id" redis-server "$work/redis.conf" --bind 127.0.0.1 --dir "$work/redis" --appendonly yes \
  --maxmemory-policy noeviction --daemonize no >"$work/redis.log" 2>&1 &
redis_pid=$!

start() { # NAME ARGUMENT...
  local name=$1
  shift
  quiet podman run -d --name "$id-$name" --network "ns:/run/netns/$id" --read-only --read-only-tmpfs=false \
    --tmpfs /tmp:rw,size=16m,mode=1777 --cap-drop all --security-opt no-new-privileges --memory 512m --pids-limit 256 \
    --volume "$work/secrets:/run/secrets:ro" --volume "$work/rules:/etc/close-enrich:ro" \
    --env CLOSE_API_KEY_FILE=/run/secrets/close_api_key --env REDIS_URL_FILE=/run/secrets/redis_url \
    --env CLOSE_API_URL=http://127.0.0.1:8090/api/v1 --env PUBLIC_URL=http://127.0.0.1:8080 --env SHUTDOWN_GRACE=5s \
    "$image" "$@" >/dev/null
}
logs() { podman logs "$id-$1" 2>&1; }
answers() { ip netns exec "$id" curl -sf -m 3 -o /dev/null "$1"; }
within() { # SECONDS COMMAND...: until it succeeds
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.2
  done
}
close() { # METHOD PATH [BODY]
  ip netns exec "$id" curl -sf -m 5 -u "$(cat "$work/secrets/close_api_key"):" -X "$1" -H 'content-type: application/json' \
    "http://127.0.0.1:8090/api/v1$2" ${3:+--data "$3"}
}

check "sandbox starts" start sandbox sandbox --port 8090 --latency 0.2
check "web starts with a read-only root and no capabilities" start web web
check "worker starts so, too" start worker worker
began=$SECONDS
check "web is ready" within 60 answers http://127.0.0.1:8080/readyz
echo "--- ready after $((SECONDS - began)) s"

healthy() { timeout 30 podman healthcheck run "$id-$1" >/dev/null 2>&1; }
check "web's health check is green" within 60 healthy web
check "worker's health check is green" within 60 healthy worker
for name in web worker; do
  pid=$(podman inspect "$id-$name" --format '{{.State.Pid}}' 2>/dev/null)
  check "$name runs as user $user" grep -q "^Uid:[[:space:]]*${user}[[:space:]]" "/proc/$pid/status"
  check "$name holds no capability" grep -q '^CapEff:[[:space:]]*0*$' "/proc/$pid/status"
  check "$name has a read-only root" grep -q ' / / ro' "/proc/$pid/mountinfo"
done

# the worker has subscribed at the sandbox by now, or will: a new lead is delivered, signed, and its field filled
subscribed() { close GET /webhook/ | grep -q 127.0.0.1:8080; }
check "worker subscribes web to Close's events" within 60 subscribed
lead=$(close POST /lead/ '{"name": "Ottermere Clinics", "url": "https://ottermere-clinics.example"}' | sed -nE 's/.*"id": ?"(lead_[A-Za-z0-9]+)".*/\1/p')
enriched() { podman exec "$id-worker" close-enrich show "$lead" --json 2>/dev/null | grep -qE '"state": ?"(filled|empty)"'; }
check "a signed event of lead ${lead:-(none made)} is enriched" within 60 enriched

for name in web worker; do
  began=$SECONDS
  quiet podman stop -t 20 "$id-$name" >/dev/null || true
  code=$(podman inspect "$id-$name" --format '{{.State.ExitCode}}' 2>/dev/null)
  check "$name ends by itself on SIGTERM (exit $code after $((SECONDS - began)) s)" test "$code" = 0
  logs $name >"$work/$name.log"
  check "$name's log shows no traceback" bash -c "! grep -q Traceback '$work/$name.log'"
  check "$name's log shows no secret" bash -c "! grep -q -e '$password' -e api_sandbox0000000000000.demo '$work/$name.log'"
done
if [ "$failed" != 0 ]; then
  for name in sandbox web worker; do
    echo "--- the end of $name's log"
    logs $name | tail -n 20
  done
fi
finish
