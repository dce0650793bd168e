#!/bin/sh
# Starts softxent. A secret may be a file: NAME_FILE names it and its text becomes NAME, for this
# process alone, as with the images of PostgreSQL and others.
set -eu
for name in SOFTXENT_DATABASE AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; do
    eval "file=\${${name}_FILE:-}"
    if [ -n "$file" ]; then
        export "$name=$(cat "$file")"
        unset "${name}_FILE"
    fi
done
exec softxent "$@"
