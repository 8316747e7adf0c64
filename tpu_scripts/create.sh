#!/usr/bin/env bash
# Asks for a TPU as a queued resource: one host (v5e-8) or a slice of several (v5e-16).
#
#   create.sh --project=P --zone=Z --name=N --accelerator-type=v5e-16 [--spot] [--wait]
#             [-- FURTHER GCLOUD FLAGS]
#
#   --accelerator-type  v4-8, v5e-8 (also as v5litepod-8), v5p-8, v6e-8, ...
#   --runtime-version   the VM's image; by default the one that belongs to the accelerator
#   --spot              cheaper, and may be taken away at any time (see resume.sh)
#   --wait              returns when the TPU is ACTIVE; --interval=60 seconds between looks,
#                       --timeout=0 (none) seconds in all
#   --dry-run           prints the gcloud commands, and runs none
#
# Every flag is also a variable: TPU_PROJECT, TPU_ZONE, TPU_NAME, TPU_ACCELERATOR_TYPE, TPU_SPOT=1.
# The queued resource and its one node have the same name. What is there already is left alone.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
parse "--accelerator-type --runtime-version --interval --timeout" "--spot --wait" "$@"

TPU_ACCELERATOR_TYPE=${TPU_ACCELERATOR_TYPE/#v5e-/v5litepod-}
check TPU_ACCELERATOR_TYPE --accelerator-type 'v[0-9]+[a-z]*-[0-9]+' v5e-8
if [[ -z $TPU_RUNTIME_VERSION ]]; then
  case $TPU_ACCELERATOR_TYPE in
    v6e-*) TPU_RUNTIME_VERSION=v2-alpha-tpuv6e ;;
    v5p-*) TPU_RUNTIME_VERSION=v2-alpha-tpuv5 ;;
    v5litepod-*) TPU_RUNTIME_VERSION=v2-alpha-tpuv5-lite ;;
    v4-* | v3-* | v2-*) TPU_RUNTIME_VERSION=tpu-ubuntu2204-base ;;
    *) fail "which --runtime-version for $TPU_ACCELERATOR_TYPE?" ;;
  esac
fi
check TPU_RUNTIME_VERSION --runtime-version '[a-z0-9][a-z0-9.-]*' v2-alpha-tpuv5-lite

now=ABSENT
[[ -n $TPU_DRY_RUN ]] || now=$(state)
case $now in
  ABSENT)
    call gcloud compute tpus queued-resources create "$TPU_NAME" "${WHERE[@]}" \
      "--node-id=$TPU_NAME" "--accelerator-type=$TPU_ACCELERATOR_TYPE" \
      "--runtime-version=$TPU_RUNTIME_VERSION" ${TPU_SPOT:+--spot} --quiet \
      ${REST[@]+"${REST[@]}"}
    ;;
  FAILED | SUSPENDING | SUSPENDED | DELETING)
    fail "$TPU_NAME is there and $now; delete.sh removes it, resume.sh asks for it anew"
    ;;
  *) say "$TPU_NAME is there already, $now" ;;
esac
[[ -z $TPU_WAIT ]] || wait_active
