# shellcheck shell=bash disable=SC2034  # the scripts that source it use the variables
# What the scripts of this folder share: settings, checks, and calling gcloud. Sourced, not run.
#
# A setting is a variable TPU_<NAME>, from the environment or from the flag --<name>; a flag wins.

set -euo pipefail

: "${TPU_PROJECT:=}" "${TPU_ZONE:=}" "${TPU_NAME:=}" "${TPU_ACCELERATOR_TYPE:=}"
: "${TPU_RUNTIME_VERSION:=}" "${TPU_SPOT:=}" "${TPU_WAIT:=}" "${TPU_YES:=}" "${TPU_DRY_RUN:=}"
: "${TPU_BUCKET:=}" "${TPU_EXTRAS:=tpu,quant}" "${TPU_PYTHON:=3.12}" "${TPU_HF_TOKEN_FILE:=}"
: "${TPU_WORKDIR:=}" "${TPU_TO:=}" "${TPU_CHECKPOINTS:=}" "${TPU_WORKER:=0}" "${TPU_ONCE:=}"
: "${TPU_LINES:=50}" "${TPU_KEEP:=}" "${TPU_INTERVAL:=60}" "${TPU_TIMEOUT:=0}"

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REST=() # the words after --
WHERE=()

# Where things lie on every worker, below its home; and where a bucket is mounted.
REMOTE_CODE=calib_jax
REMOTE_ENV=calib_jax_env
REMOTE_RUN=calib_jax_run
MOUNT=/mnt/calib_jax

fail() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
  exit 2
}

say() {
  printf '%s\n' "$1" >&2
}

# The header comment of the script is its help.
usage() {
  sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
}

# parse "<flags with a value>" "<switches>" "$@": sets TPU_<NAME>; what follows -- goes into REST.
parse() {
  local values=" --project --zone --name $1 " switches=" --dry-run $2 " flag value name given
  shift 2
  while (($#)); do
    flag=$1 value='' given=
    shift
    case $flag in
      -h | --help)
        usage
        exit 0
        ;;
      --)
        REST=("$@")
        break
        ;;
      --*=*) value=${flag#*=} flag=${flag%%=*} given=1 ;;
    esac
    name=${flag#--}
    name=${name//-/_}
    if [[ $switches == *" $flag "* ]]; then
      [[ -z $given ]] || fail "$flag takes no value"
      value=1
    elif [[ $values == *" $flag "* ]]; then
      if [[ -z $given ]]; then
        (($#)) || fail "$flag needs a value"
        value=$1
        shift
      fi
    else
      fail "unknown argument '$flag'; see --help"
    fi
    printf -v "TPU_${name^^}" '%s' "$value"
  done
  check TPU_PROJECT --project '[a-z][a-z0-9:.-]*[a-z0-9]' my-project
  check TPU_ZONE --zone '[a-z]+-[a-z]+[0-9]+-[a-z]' us-west4-a
  check TPU_NAME --name '[a-z]([a-z0-9-]{0,61}[a-z0-9])?' calib-v5e
  WHERE=("--project=$TPU_PROJECT" "--zone=$TPU_ZONE")
}

# check VARIABLE FLAG REGEX EXAMPLE
check() {
  local value=${!1}
  [[ -n $value ]] || fail "$2 is missing (or set $1); for example $2=$4"
  [[ $value =~ ^$3$ ]] || fail "$2 is '$value'; expected something like $4"
}

check_number() {
  [[ ${!1} =~ ^[0-9]+$ ]] || fail "$2 is '${!1}'; expected a whole number"
}

check_bucket() {
  [[ -z $TPU_BUCKET ]] || check TPU_BUCKET --bucket '[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]' my-bucket
}

# A folder on the workers' disks or in a bucket that setup.sh mounts there.
check_workdir() {
  [[ -n $TPU_WORKDIR ]] || fail "--workdir is missing; for example --workdir=$MOUNT/cft"
  [[ $TPU_WORKDIR != gs://* ]] || fail "--workdir is '$TPU_WORKDIR': a run writes to folders, not \
to gs:// addresses. Mount the bucket with setup.sh --bucket and give --workdir=$MOUNT/..."
  [[ $TPU_WORKDIR == /* ]] || fail "--workdir is '$TPU_WORKDIR'; expected an absolute path"
}

# The job's words, after --: flags of the scripts are none of them, and a config file that is named by
# a relative path is one of this repository's, which setup.sh copies.
check_job() {
  local word file config=
  for word in ${REST[@]+"${REST[@]}"}; do
    if [[ $config == next ]]; then word=--config=$word; fi
    case $word in
      --workdir | --workdir=* | --dry-run | --help | -h)
        fail "give ${word%%=*} before --, not after"
        ;;
      --config) config=next ;;
      --config=*)
        config=${word#*=}
        file=${config%%:*}
        [[ $file == /* || -f $HERE/../$file ]] || fail "--config names '$file': there is no such \
file in this repository, $(cd "$HERE/.." && pwd)"
        ;;
    esac
  done
  [[ -n $config && $config != next ]] || fail "no --config after --; for example \
-- --config=configs/cft.py:tulu3_8b"
}

# Words as a shell would read them back.
quoted() {
  local word line=
  for word in "$@"; do
    if [[ ! $word =~ ^[A-Za-z0-9_/.:=,@%+-]+$ ]]; then word="'${word//\'/\'\\\'\'}'"; fi
    line+="$word "
  done
  printf '%s\n' "${line% }"
}

# Runs a command, or prints it under --dry-run.
call() {
  if [[ -n $TPU_DRY_RUN ]]; then quoted "$@"; else "$@"; fi
}

# remote WORKER COMMAND: runs a shell command on one worker (0, 1, ...) or on "all".
remote() {
  call gcloud compute tpus tpu-vm ssh "$TPU_NAME" "${WHERE[@]}" "--worker=$1" "--command=$2" --quiet
}

# upload FILE PATH: copies a file to all workers, PATH below their homes.
upload() {
  call gcloud compute tpus tpu-vm scp "$1" "$TPU_NAME:$2" "${WHERE[@]}" --worker=all --quiet
}

# The queued resource's state (ACTIVE, WAITING_FOR_RESOURCES, SUSPENDED, ...), or ABSENT.
state() {
  local out errors
  errors=$(mktemp)
  if out=$(gcloud compute tpus queued-resources describe "$TPU_NAME" "${WHERE[@]}" \
    '--format=value(state.state)' 2>"$errors"); then
    rm -f "$errors"
    printf '%s\n' "$out"
  elif grep -qi 'not_found\|not found' "$errors"; then
    rm -f "$errors"
    printf 'ABSENT\n'
  else
    out=$(<"$errors")
    rm -f "$errors"
    fail "gcloud cannot describe $TPU_NAME: $out"
  fi
}

# Returns when the queued resource is ACTIVE; fails when it never will be.
wait_active() {
  local now waited=0
  check_number TPU_INTERVAL --interval
  check_number TPU_TIMEOUT --timeout
  if [[ -n $TPU_DRY_RUN ]]; then
    quoted gcloud compute tpus queued-resources describe "$TPU_NAME" "${WHERE[@]}" \
      '--format=value(state.state)'
    return
  fi
  while true; do
    now=$(state)
    case $now in
      ACTIVE)
        say "$TPU_NAME is ACTIVE"
        return
        ;;
      FAILED | SUSPENDING | SUSPENDED | DELETING | ABSENT)
        fail "$TPU_NAME is $now and will not become ACTIVE; resume.sh asks for it anew"
        ;;
    esac
    ((TPU_TIMEOUT == 0 || waited < TPU_TIMEOUT)) || fail "$TPU_NAME is $now after $waited s"
    say "$TPU_NAME is $now"
    sleep "$TPU_INTERVAL"
    waited=$((waited + TPU_INTERVAL))
  done
}
