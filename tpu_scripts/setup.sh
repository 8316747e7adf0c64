#!/usr/bin/env bash
# Installs this repository on every worker of a TPU; may be repeated after every change of the code.
#
#   setup.sh --project=P --zone=Z --name=N [--bucket=B] [--hf-token-file=FILE]
#
#   --bucket         a Cloud Storage bucket, mounted on all workers at /mnt/calib_jax by gcsfuse. A
#                    run writes to folders and not to gs:// addresses, and all workers must see the
#                    same one: give run.sh --workdir=/mnt/calib_jax/... A run on a slice needs this
#                    (or a shared disk of your own); one on a single host needs it to survive a
#                    preemption. Make the bucket with a hierarchical namespace, so that folders are
#                    renamed at once:
#                      gcloud storage buckets create gs://B --location=REGION \
#                        --uniform-bucket-level-access --enable-hierarchical-namespace
#                    The TPU's service account must be allowed to write to it.
#   --hf-token-file  copied to every worker, for models behind a licence (Llama)
#   --extras         of the package; default tpu,quant
#   --python         version for the environment; default 3.12
#   --dry-run        prints the commands, and runs none
#
# What is committed (HEAD) is copied; other changes are not, and are named.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
parse "--bucket --hf-token-file --extras --python" "" "$@"
check_bucket
check TPU_EXTRAS --extras '[a-z-]+(,[a-z-]+)*' tpu,quant
check TPU_PYTHON --python '3\.[0-9]+(\.[0-9]+)?' 3.12
if [[ -n $TPU_HF_TOKEN_FILE && ! -r $TPU_HF_TOKEN_FILE ]]; then
  fail "--hf-token-file: cannot read '$TPU_HF_TOKEN_FILE'"
fi

# Changed and new files stay here, and a job would run without them.
changed=$(git -C "$HERE/.." status --porcelain 2>/dev/null) || changed=
if [[ -n $changed ]]; then
  mapfile -t lines <<<"$changed"
  say "setup.sh: only what is committed is copied; ${#lines[@]} changed or new file(s) are not:"
  printf '  %s\n' "${lines[@]:0:10}" >&2
  ((${#lines[@]} <= 10)) || say "  and $((${#lines[@]} - 10)) more"
fi

archive=${TMPDIR:-/tmp}/calib_jax-$TPU_NAME.tar.gz
call git -C "$HERE/.." archive --format=tar.gz "--output=$archive" HEAD
upload "$archive" "$REMOTE_CODE.tar.gz"

# uv brings the interpreter along: the images' own may be older than the package asks for.
remote all "set -e; cd ~; rm -rf $REMOTE_CODE; mkdir $REMOTE_CODE; \
tar -xzf $REMOTE_CODE.tar.gz -C $REMOTE_CODE; export PATH=\"\$HOME/.local/bin:\$PATH\"; \
command -v uv >/dev/null || python3 -m pip install --user --quiet uv \
|| python3 -m pip install --user --quiet --break-system-packages uv; \
uv venv --quiet --allow-existing --python $TPU_PYTHON $REMOTE_ENV; \
uv pip install --quiet --python $REMOTE_ENV/bin/python \"./${REMOTE_CODE}[$TPU_EXTRAS]\""

if [[ -n $TPU_BUCKET ]]; then
  GCSFUSE=${GCSFUSE:-3.11.1} # its version
  release=https://github.com/GoogleCloudPlatform/gcsfuse/releases/download/v$GCSFUSE
  remote all "set -e; command -v gcsfuse >/dev/null || { \
curl -fsSL -o /tmp/gcsfuse.deb $release/gcsfuse_${GCSFUSE}_amd64.deb; \
sudo apt-get update -q; sudo apt-get install -y -q /tmp/gcsfuse.deb; }; \
mountpoint -q $MOUNT || { sudo mkdir -p $MOUNT; sudo chown \"\$(id -u):\$(id -g)\" $MOUNT; \
gcsfuse --implicit-dirs --rename-dir-limit=100000 $TPU_BUCKET $MOUNT; }"
fi
if [[ -n $TPU_HF_TOKEN_FILE ]]; then
  remote all "mkdir -p ~/.cache/huggingface"
  upload "$TPU_HF_TOKEN_FILE" .cache/huggingface/token
fi
