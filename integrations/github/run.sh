#!/usr/bin/env bash
# Inputs come by the environment: nothing a workflow writes is read as a command line here.
set -euo pipefail

read -r -a broker <<<"${BROKER_COMMAND:-broker}"
options=()
if [[ -n "${BROKER_DURATION:-}" ]]; then options+=(--duration "$BROKER_DURATION"); fi
if [[ "${BROKER_END:-false}" == "true" ]]; then options+=(--end); fi
exec "${broker[@]}" ci "$BROKER_ROLE" "${options[@]}"
