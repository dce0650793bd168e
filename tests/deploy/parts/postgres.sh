#!/bin/sh
# What the image of PostgreSQL does on a start, as far as the stack needs it.
set -eu
data=/var/lib/postgresql/data
bin="$(pg_config --bindir 2>/dev/null || ls -d /usr/lib/postgresql/*/bin)"
as_postgres() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
chown postgres:postgres "$data"
if [ ! -s "$data/PG_VERSION" ]; then
    install -o postgres -m 600 "$POSTGRES_PASSWORD_FILE" /tmp/password
    as_postgres "$bin/initdb" -E UTF8 -A scram-sha-256 --auth-local=trust -U "$POSTGRES_USER" --pwfile=/tmp/password --no-sync -D "$data"
    echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
    echo "create database $POSTGRES_DB" | as_postgres "$bin/postgres" --single -j -D "$data" postgres
fi
exec setpriv --reuid=postgres --regid=postgres --clear-groups "$bin/postgres" -D "$data" -c listen_addresses='*' -k /var/run/postgresql
