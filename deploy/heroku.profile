# shellcheck shell=bash
# Heroku runs this as .profile before every command, also those of `heroku run`; see README.md, "Heroku".
#
# Its Key-Value Store is reached by TLS with a certificate that no authority has signed, and REDIS_URL, which Heroku sets and
# changes by itself, does not say so. What says something about certificates already stays as it is.
case ${REDIS_URL:-} in
  rediss://*[?\&]ssl_*) ;;
  rediss://*\?*) export REDIS_URL="$REDIS_URL&ssl_cert_reqs=none" ;;
  rediss://*) export REDIS_URL="$REDIS_URL?ssl_cert_reqs=none" ;;
esac
