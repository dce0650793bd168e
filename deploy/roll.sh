#!/bin/sh
# Replaces the replicas by what the image and compose.yaml are now, one after the other, without a
# lost request.
#
#   sh deploy/roll.sh docker compose -f deploy/compose.yaml
set -eu
asked="from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"
for replica in api-1 api-2; do
    # It drains for 5 s, in which the balancer stops sending it requests, and ends what it has.
    "$@" stop "$replica"
    "$@" up -d --no-deps --force-recreate "$replica"
    tries=60
    until "$@" exec -T "$replica" python -c "$asked" 2>/dev/null; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "roll: $replica is not ready; the others serve" >&2; exit 1; }
        sleep 1
    done
    # The balancer finds the new address and asks for health.
    sleep 5
done
