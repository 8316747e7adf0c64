#!/usr/bin/env bash
# Gives a TPU back, with everything on its disks; a bucket is left as it is.
#
#   delete.sh --project=P --zone=Z --name=N [--yes]
#
#   --yes      without asking
#   --dry-run  prints the gcloud command, and runs none
#
# What is not there needs no deleting: that is no error.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
parse "" "--yes" "$@"

if [[ -z $TPU_DRY_RUN ]]; then
  now=$(state)
  if [[ $now == ABSENT ]]; then
    say "there is no $TPU_NAME"
    exit 0
  fi
  if [[ -z $TPU_YES ]]; then
    [[ -t 0 ]] || fail "give --yes to delete $TPU_NAME ($now) without being asked"
    read -r -p "Delete $TPU_NAME ($now) and its disks? [y/N] " answer
    [[ $answer == [yY] ]] || fail "not deleted"
  fi
fi
call gcloud compute tpus queued-resources delete "$TPU_NAME" "${WHERE[@]}" --force --quiet
