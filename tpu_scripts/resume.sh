#!/usr/bin/env bash
# Brings a run back after a preemption: asks for the TPU anew if it is gone, sets it up, starts the
# same run, which goes on from its last checkpoint.
#
#   resume.sh --project=P --zone=Z --name=N --accelerator-type=v5e-16 [--spot] --bucket=B
#             --workdir=/mnt/calib_jax/cft [--keep] -- --config=configs/cft.py:tulu3_8b
#
# All flags of create.sh, setup.sh and run.sh hold. A spot TPU is not restarted after a preemption:
# its queued resource is SUSPENDED, and is deleted and asked for again under the same name. An ACTIVE
# one is kept, and its run is only started again where it does not run.
#
#   --keep     looks every --interval=60 seconds and resumes, until the run has ended by itself
#   --dry-run  prints the commands of one full resumption, and runs none

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
parse "--accelerator-type --runtime-version --interval --timeout --bucket --hf-token-file --extras \
--python --workdir" "--spot --keep" "$@"
check_workdir
check_number TPU_INTERVAL --interval
[[ -n $TPU_BUCKET || $TPU_WORKDIR != "$MOUNT"* ]] || fail "--workdir is below $MOUNT; which --bucket?"
check_job
# Settings reach the other scripts as variables.
export TPU_PROJECT TPU_ZONE TPU_NAME TPU_ACCELERATOR_TYPE TPU_RUNTIME_VERSION TPU_SPOT TPU_DRY_RUN
export TPU_BUCKET TPU_HF_TOKEN_FILE TPU_EXTRAS TPU_PYTHON TPU_WORKDIR TPU_INTERVAL TPU_TIMEOUT

# What worker 0's run returned; nothing while it runs, or when it was killed.
exit_status() {
  gcloud compute tpus tpu-vm ssh "$TPU_NAME" "${WHERE[@]}" --worker=0 --quiet \
    "--command=cat ~/$REMOTE_RUN/exit_status 2>/dev/null || true"
}

while true; do
  now=SUSPENDED
  [[ -n $TPU_DRY_RUN ]] || now=$(state)
  fresh=
  case $now in
    FAILED | SUSPENDING | SUSPENDED | DELETING) TPU_YES=1 "$HERE/delete.sh" && fresh=1 ;;
    ABSENT) fresh=1 ;;
  esac
  TPU_WAIT=1 "$HERE/create.sh"
  if [[ -n $fresh ]]; then "$HERE/setup.sh"; fi
  if [[ -n $TPU_KEEP && -z $TPU_DRY_RUN && -z $fresh ]]; then
    ended=$(exit_status) || ended=
    # 143: it was stopped from outside with work left, and continues.
    if [[ -n $ended && $ended != 143 ]]; then
      say "the run has ended with $ended"
      exit "$ended"
    fi
  fi
  "$HERE/run.sh" -- "${REST[@]}"
  if [[ -z $TPU_KEEP || -n $TPU_DRY_RUN ]]; then break; fi
  sleep "$TPU_INTERVAL"
done
