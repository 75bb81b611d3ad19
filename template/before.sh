# shellcheck shell=bash
# Sourced by Open OnDemand before the job's program. The folder was made readable for others; it is nobody's business.
umask 077
chmod 700 "$PWD"
chmod 600 request.json
export card=
# What a scheduler sends to the whole job before it kills (Grid Engine: SIGUSR2) ends the program, and must not end this shell first: the
# end of the shell is the end of the job, for whatever is still tidying up. The wait for the program is over then, and clean.sh waits again.
trap : TERM USR1 USR2 XCPU
