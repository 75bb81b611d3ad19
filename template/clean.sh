# shellcheck shell=bash
# Sourced by Open OnDemand at the end: the program ends its lease when it is told to. A second warning does not end the wait for that.
trap '' TERM USR1 USR2 XCPU
if [ -n "${SCRIPT_PID:-}" ] && kill -TERM "$SCRIPT_PID" 2>/dev/null; then
    wait "$SCRIPT_PID" || :
fi
