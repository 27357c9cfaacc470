#!/bin/sh
# Writes an AWS credentials file and renews it. BROKER_ONCE=true writes it once, for an init
# container before a short job.
set -eu

: "${BROKER_COMMAND:=broker}" "${BROKER_SHARED:=/shared}" "${BROKER_EVERY:=1200}"
file="$BROKER_SHARED/credentials"

renew() {
    # In a subshell: the values leave it only by the file, which is replaced in one step.
    (
        umask 077
        lines="$($BROKER_COMMAND ci "$BROKER_ROLE" --format env)"
        eval "$lines"
        {
            echo "[default]"
            echo "aws_access_key_id = $AWS_ACCESS_KEY_ID"
            echo "aws_secret_access_key = $AWS_SECRET_ACCESS_KEY"
            echo "aws_session_token = $AWS_SESSION_TOKEN"
        } >"$file.new"
        mv "$file.new" "$file"
    )
}

renew
while [ "${BROKER_ONCE:-false}" != "true" ]; do
    sleep "$BROKER_EVERY"
    renew || echo "broker: the credentials in $file stay as they are for now" >&2
done
