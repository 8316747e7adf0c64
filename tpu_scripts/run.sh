#!/usr/bin/env bash
# Starts a job on every worker of a TPU, in the background; the workers find each other by themselves.
#
#   run.sh --project=P --zone=Z --name=N --workdir=/mnt/calib_jax/cft \
#     -- --config=configs/cft.py:tulu3_8b [--config.seed=1 ...]
#
#   --workdir  of the run, the same on all workers: below /mnt/calib_jax where setup.sh has mounted
#              a bucket. On a single host a folder of its own disk will do, which a preemption loses.
#   --dry-run  prints the gcloud commands, and runs none
#
# What follows -- is given to python -m calib_jax.main. A run that was stopped goes on from its last
# checkpoint when it is started again; a worker that runs already is left alone. watch.sh follows it.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
parse "--workdir" "" "$@"
check_workdir
check_job

job=$(quoted "../$REMOTE_ENV/bin/python" -m calib_jax.main "${REST[@]}" "--workdir=$TPU_WORKDIR")
# In its own session, so that it outlives the connection; what it returned is kept for watch.sh.
remote all "set -e; mkdir -p ~/$REMOTE_RUN; cd ~/$REMOTE_CODE; \
if [ -s ../$REMOTE_RUN/pid ] && [ ! -s ../$REMOTE_RUN/exit_status ] && kill -0 \"\$(cat ../$REMOTE_RUN/pid)\" \
2>/dev/null; then echo \"\$(hostname): runs already\"; exit 0; fi; rm -f ../$REMOTE_RUN/exit_status; \
PYTHONUNBUFFERED=1 setsid nohup bash -c $(quoted "$job; echo \$? >../$REMOTE_RUN/exit_status") \
>>../$REMOTE_RUN/log 2>&1 </dev/null & echo \$! >~/$REMOTE_RUN/pid; echo \"\$(hostname): started\""
