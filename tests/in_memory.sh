#!/usr/bin/env bash
# Run pytest by the command that is given. Its files lie in memory where that has room: else they wait for the disk
# twenty times each.
# What a failed run left is kept until the next one.
least_kb=6000000 # all tests leave 1.5 GB, and their processes need room as well
for left in /dev/shm/mainspring-*; do
  pid=${left#/dev/shm/mainspring-}
  [ -d "$left" ] && [ ! -d "/proc/${pid%%-*}" ] && rm -rf "$left"
done
free_kb=$(df -k --output=avail /dev/shm 2>/dev/null | tail -n 1)
memory_kb=$(awk '/^MemAvailable/ {print $2}' /proc/meminfo 2>/dev/null)
[ -w /dev/shm ] && [ "${free_kb:-0}" -gt "$least_kb" ] && [ "${memory_kb:-0}" -gt "$least_kb" ] || exec "$@"
TMPDIR=$(mktemp -d "/dev/shm/mainspring-$$-XXXXXX") && export TMPDIR
chmod 711 "$TMPDIR" # Postgres does not run as root
"$@" --basetemp="$TMPDIR/t" # short: the path of a socket has at most 108 bytes
code=$?
if [ "$code" = 0 ]; then rm -rf "$TMPDIR"; else echo "The files of these tests are in $TMPDIR" >&2; fi
exit "$code"
