#!/usr/bin/env bash
# Says how a TPU and its run are, and follows the run's log.
#
#   watch.sh --project=P --zone=Z --name=N [--once] [--worker=0] [--lines=50]
#
#   --once     the TPU's state, each worker's, and the last lines of the log; then ends
#   --worker   whose log (0, 1, ...); worker 0 writes the run's results
#   --dry-run  prints the gcloud commands, and runs none

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
parse "--worker --lines" "--once" "$@"
check_number TPU_WORKER --worker
check_number TPU_LINES --lines

call gcloud compute tpus queued-resources describe "$TPU_NAME" "${WHERE[@]}" \
  '--format=value(state.state)'
remote all "cd ~/$REMOTE_RUN 2>/dev/null || { echo \"\$(hostname): nothing was run\"; exit 0; }; \
if [ -s exit_status ]; then echo \"\$(hostname): ended with \$(cat exit_status)\"; \
elif kill -0 \"\$(cat pid)\" 2>/dev/null; then echo \"\$(hostname): runs\"; \
else echo \"\$(hostname): was killed\"; fi"
follow=-F
[[ -z $TPU_ONCE ]] || follow=
remote "$TPU_WORKER" "tail -n $TPU_LINES ${follow:+$follow }~/$REMOTE_RUN/log"
