#!/usr/bin/env bash
# Looks for known weaknesses: bandit in the code, OSV's advisories for requirements*.txt, grype or trivy in the image.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: scripts/scan.sh [--complete] [code] [requirements] [image]

Without names all three. What cannot be done here is said and passed over: the advisory service is out of reach, there
is no image (`make image`), or neither grype, trivy nor Docker. With --complete that fails, as pipelines want it.

OSV_URL is another advisory service's query URL, GRYPE_IMAGE another release of grype, SCANNERS the environment with
bandit and pip-audit (default: .venv-scan).

Exit status: 0 nothing found, 1 something found, or not complete, 2 wrong usage.
HELP
}

scanners=${SCANNERS:-.venv-scan}
osv_url=${OSV_URL:-https://api.osv.dev/v1/query}
grype_image=${GRYPE_IMAGE:-anchore/grype:v0.116.0@sha256:fd4ab4d1042b522c896e73bdf09ab8bf384fa417df99d6dd0d6e1008c7e7c821}
archive=.aws-sam/image.tar
complete=false

skip() {
    echo "$1: skipped, $2"
    if "$complete"; then return 1; fi
}

# ruff's S rules are most of bandit's, with a reason at each exception: what is left out here (low severity, eval,
# urlopen, SQL made of strings) `make lint` holds.
scan_code() {
    "$scanners/bin/bandit" --quiet --severity-level medium --skip B307,B310,B608 --recursive src scripts
    echo "code: bandit found nothing"
}

# pip-audit exits with 1 for a finding and for a service that it cannot reach. So that is asked first, and whatever
# fails afterwards is taken for a finding.
scan_requirements() {
    local reached=0 file found=false
    # Any answer will do. 5, 6, 7, 28: no proxy, no name, no connection, no time; 35, 52, 56: hung up by something between.
    curl --silent --output /dev/null --max-time 20 "$osv_url" || reached=$?
    case $reached in
        5 | 6 | 7 | 28 | 35 | 52 | 56)
            skip requirements "$osv_url is out of reach (curl: $reached)"
            return ;;
    esac
    # One by one: the same package in two files is an error. Pinned and hashed: nothing is resolved, nothing installed.
    for file in requirements*.txt; do
        echo "$file"
        "$scanners/bin/pip-audit" --vulnerability-service osv --osv-url "$osv_url" --disable-pip \
            --progress-spinner off --requirement "$file" || found=true
    done
    if "$found"; then return 1; fi
    echo "requirements: no advisory for any of requirements*.txt"
}

# Only what has a fix: the rest cannot be acted on here, and comes back when there is one.
scan_image() {
    if [[ ! -f $archive ]]; then
        skip image "there is no $archive (make image)"
        return
    fi
    if command -v grype >/dev/null; then
        grype "docker-archive:$archive" --fail-on high --only-fixed
    elif command -v trivy >/dev/null; then
        trivy image --input "$archive" --exit-code 1 --severity HIGH,CRITICAL --ignore-unfixed
    elif docker info >/dev/null 2>&1; then
        docker run --rm --volume "$PWD/${archive%/*}:/scan:ro" "$grype_image" \
            "docker-archive:/scan/${archive##*/}" --fail-on high --only-fixed
    else
        skip image "there is no grype, no trivy and no Docker"
        return
    fi
    echo "image: nothing of high severity that has a fix"
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
parts=()
for argument; do
    case $argument in
        --complete) complete=true ;;
        code | requirements | image) parts+=("$argument") ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done
((${#parts[@]})) || parts=(code requirements image)

# One after the other, each to its end: a finding in one hides none in the next. A shell of its own for each, because
# bash ignores `set -e` where it is asked for the outcome.
status=0
for part in "${parts[@]}"; do
    set +e
    case $part in
        code) (set -e; scan_code) ;;
        requirements) (set -e; scan_requirements) ;;
        image) (set -e; scan_image) ;;
    esac
    outcome=$?
    set -e
    ((outcome == 0)) || { echo "$part: failed" >&2; status=1; }
done
exit "$status"
