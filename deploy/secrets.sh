#!/bin/sh
# Makes the files of deploy/secrets/, or of the folder given, that are not there yet.
#
# Containers see them with the owner and mode that they have here: root's, and readable for group
# 10001, which is the image's user's.
set -eu
umask 027
folder="${1:-$(dirname "$0")/secrets}"
mkdir -p "$folder"
cd "$folder"

random() { head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n'; }

key() { # name, scopes: the key in a file of its own, its digest among those that are let in
    printf 'softxent-%s' "$(random)" > "$1.key"
    printf '%s %s sha256:%s\n' "$1" "$2" "$(sha256sum < "$1.key" | cut -d' ' -f1)" >> keys
}

[ -e client.key ] || key client evaluate,jobs
[ -e prometheus.key ] || key prometheus metrics
if [ ! -e database ]; then
    random > database-password
    printf 'postgresql://softxent:%s@postgres:5432/softxent' "$(cat database-password)" > database
fi
if [ ! -e s3.json ]; then
    printf 'softxent' > s3-id
    random > s3-secret
    printf '{"identities": [{"name": "softxent", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": ["Admin", "Read", "Write", "List"]}]}\n' \
        "$(cat s3-id)" "$(cat s3-secret)" > s3.json
fi
# Where this is not run by root, the files are everyone's to read: keep the folder to yourself.
chgrp -R 10001 . 2>/dev/null || chmod a+r ./*
