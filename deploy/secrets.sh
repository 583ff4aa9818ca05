#!/usr/bin/env bash
# Makes the secrets that compose.yaml mounts as files, in deploy/secrets. What is there already stays.
#
#   deploy/secrets.sh                     asks for Close's API key
#   CLOSE_API_KEY=api_… deploy/secrets.sh
set -euo pipefail
cd "$(dirname "$0")"

umask 077
mkdir -p secrets
# only the owner may enter the directory; in a container the files are read by users of other numbers
chmod 700 secrets

keep() { # NAME: stdin becomes the secret
  cat >"secrets/$1.new"
  chmod 444 "secrets/$1.new"
  mv "secrets/$1.new" "secrets/$1"
  echo "made deploy/secrets/$1"
}

random_word() { od -An -N 24 -t x1 /dev/urandom | tr -d ' \n'; }

if [ ! -s secrets/close_api_key ]; then
  key=${CLOSE_API_KEY:-}
  if [ -z "$key" ]; then
    read -rsp "Close API key (not shown): " key
    echo
  fi
  if [ -z "$key" ]; then
    echo "no key given" >&2
    exit 2
  fi
  printf '%s\n' "$key" | keep close_api_key
fi

# both hold the same password: the server's configuration and the service's address
if [ ! -s secrets/redis_conf ] || [ ! -s secrets/redis_url ]; then
  password=$(random_word)
  printf 'requirepass %s\n' "$password" | keep redis_conf
  printf 'redis://:%s@redis:6379/0\n' "$password" | keep redis_url
fi

for name in admin_token metrics_token grafana_password; do
  if [ ! -s "secrets/$name" ]; then random_word | keep "$name"; fi
done
