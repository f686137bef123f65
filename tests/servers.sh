#!/usr/bin/env bash
# Install what tests drive and the system lacks, without starting services. Without the right to, say so: those tests are skipped, or fail with CI=true.
set -u
wanted=()
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || wanted+=(chromium)
[ "$(uname)" != Linux ] || command -v strace >/dev/null || wanted+=(strace)
command -v redis-server >/dev/null || command -v valkey-server >/dev/null || wanted+=(redis-server)
command -v promtool >/dev/null || wanted+=(prometheus)
command -v alertmanager >/dev/null || command -v prometheus-alertmanager >/dev/null || wanted+=(prometheus-alertmanager)
# Postgres 17 where it can be had; else whichever is there.
[ -x /usr/lib/postgresql/17/bin/postgres ] || { [ "$(id -u)" != 0 ] && command -v postgres >/dev/null; } ||
    wanted+=(postgresql-17 postgresql-17-pgvector)
command -v nats-server >/dev/null || wanted+=(nats-server)
command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || wanted+=(mosquitto)
command -v softhsm2-util >/dev/null || wanted+=(softhsm2)
[ "$(uname)" != Linux ] || command -v gnome-keyring-daemon >/dev/null || wanted+=(gnome-keyring dbus-daemon)
[ "$(uname)" != Linux ] || command -v podman >/dev/null || wanted+=(podman runc podman-compose)
# Of benchmarks only.
if [ "${1:-}" = --bench ]; then
    command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || wanted+=(nginx-light)
    command -v borg >/dev/null || wanted+=(borgbackup)
    command -v restic >/dev/null || wanted+=(restic)
fi
[ ${#wanted[@]} -eq 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing ${wanted[*]}" >&2
    apt-get update -qq >&2 && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${wanted[@]}" >/dev/null
else
    echo "Not installed, and not allowed to install: ${wanted[*]}. Tests that need it are skipped." >&2
fi
