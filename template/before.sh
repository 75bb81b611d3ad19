# shellcheck shell=bash
# Sourced by Open OnDemand before the job's program. The folder was made readable for others; it is nobody's business.
umask 077
chmod 700 "$PWD"
chmod 600 request.json
export card=
