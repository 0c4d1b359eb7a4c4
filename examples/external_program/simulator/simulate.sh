#!/bin/sh
# How such programs are started, as a rule: by a script, so that the program is a child of what you started.
"${ROOM_PYTHON:-python3}" "$(dirname "$0")/room.py" "$@"
exit $?
