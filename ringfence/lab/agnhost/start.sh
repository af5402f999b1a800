#!/bin/sh
# Kubernetes' agnhost as it is, except for SCTP where the kernel has none.
if [ ! -e /proc/net/sctp ]; then
    case "$*" in
    porter | *--protocol=sctp*) exec python3 /sctp.py "$@" ;;
    esac
fi
exec /agnhost.real "$@"
