#!/usr/bin/env bash
# Copies a run's results here: tables, report, predictions, log; without the checkpoints.
#
#   fetch.sh --project=P --zone=Z --name=N --workdir=/mnt/calib_jax/cft [--to=FOLDER] [--bucket=B]
#
#   --to           default: the last part of --workdir
#   --bucket       reads from the bucket itself, which needs no TPU any more
#   --checkpoints  brings them too
#   --dry-run      prints the commands, and runs none

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
parse "--workdir --to --bucket" "--checkpoints" "$@"
check_bucket
check_workdir
TPU_WORKDIR=${TPU_WORKDIR%/}
TPU_TO=${TPU_TO:-${TPU_WORKDIR##*/}}

call mkdir -p "$TPU_TO"
if [[ -n $TPU_BUCKET ]]; then
  [[ $TPU_WORKDIR == "$MOUNT"/?* ]] || fail "--workdir is '$TPU_WORKDIR', and the bucket is mounted \
at $MOUNT; leave --bucket out, or give a folder below that"
  skip=(--exclude='(.*/)?checkpoints/.*')
  [[ -z $TPU_CHECKPOINTS ]] || skip=()
  call gcloud storage rsync "gs://$TPU_BUCKET/${TPU_WORKDIR#"$MOUNT"/}" "$TPU_TO" --recursive \
    "--project=$TPU_PROJECT" ${skip[@]+"${skip[@]}"}
else
  without=--exclude=checkpoints
  [[ -z $TPU_CHECKPOINTS ]] || without=
  remote 0 "tar ${without:+$without }-czf ~/$REMOTE_RUN.tar.gz -C $(quoted "$TPU_WORKDIR") ."
  call gcloud compute tpus tpu-vm scp "$TPU_NAME:$REMOTE_RUN.tar.gz" "$TPU_TO/.fetched.tar.gz" \
    "${WHERE[@]}" --worker=0 --quiet
  call tar -xzf "$TPU_TO/.fetched.tar.gz" -C "$TPU_TO"
  call rm "$TPU_TO/.fetched.tar.gz"
fi
