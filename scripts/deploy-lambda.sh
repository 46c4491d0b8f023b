#!/usr/bin/env bash
# Builds the image and deploys the stack of template.yaml; --help says how. Made for people and for CI:
# everything is in samconfig.toml and on the command line, and nothing is asked unless a person is there.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: scripts/deploy-lambda.sh [--env ENV] [options]

Builds the image, migrates the database, deploys, tries the result, and goes back if it does not work.
Stack, region, repository and parameters of ENV are in samconfig.toml (copy samconfig.toml.example).

  --env ENV              section of samconfig.toml (default: staging); prod and production want a clean
                         working tree and a confirmation
  --create-stack         the stack may be new; without it a missing stack is an error
  --rollback [VERSION]   send traffic to the version before this one, or to VERSION; nothing is built
  --skip-build           deploy the image that the last `sam build` made
  --skip-migrations      the database is migrated some other way
  --skip-smoke-test      do not try the API afterwards
  --url URL              where to try it (default: the stack's ApiUrl)
  --image-repository URI, --s3-bucket NAME, --role-arn ARN
                         outputs RepositoryUri, ArtefactsBucket and ExecutionRoleArn of infra/bootstrap.yaml
                         (default: image_repository, s3_bucket and role_arn of samconfig.toml)
  --dry-run              check everything, print what would be done, change nothing
  -p, --profile NAME     AWS profile
  -r, --region REGION    AWS region (default: that of samconfig.toml)
  -y, --yes              confirm everything
  -h, --help             this

The first deployment needs the first secrets, from the environment (`auth-manager keys generate` prints the keys as
such lines): AUTH_DATABASE_URL, AUTH_SIGNING_KEYS, and AUTH_SECRET_KEYS (made at random when unset). Later ones keep
what the stack has. AWS_ENDPOINT_URL is honoured.

Tags are made for an immutable repository: an image is built and pushed once for its commit and architecture, and
one from changes that are not committed has their content's id in its tag.

Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 deployed but taken back.
HELP
}

say() { printf '%s\n' "deploy-lambda: $*" >&2; }
die() { say "$1"; shift; for line in "$@"; do printf '  %s\n' "$line" >&2; done; exit 1; }
misused() { say "$1"; printf '  %s\n' "scripts/deploy-lambda.sh --help" >&2; exit 2; }
run() {
    # On standard error, because callers keep what the command prints.
    if "$dry_run"; then { printf 'would run:'; printf ' %q' "$@"; printf '\n'; } >&2; else "$@"; fi
}

environment=staging
create=false rollback=false version='' skip_build=false skip_migrations=false skip_smoke_test=false
url='' dry_run=false yes=false region='' repository='' bucket='' role=''

parse_arguments() {
    while (($#)); do
        case $1 in
            --env | --url | --image-repository | --s3-bucket | --role-arn | -p | --profile | -r | --region)
                (($# > 1)) && [[ $2 != -* ]] || misused "$1 needs a value" ;;&
            --env) environment=$2; shift ;;
            --create-stack) create=true ;;
            --rollback)
                rollback=true
                if (($# > 1)) && [[ $2 != -* ]]; then version=$2; shift; fi ;;
            --skip-build) skip_build=true ;;
            --skip-migrations) skip_migrations=true ;;
            --skip-smoke-test) skip_smoke_test=true ;;
            --url) url=$2; shift ;;
            --image-repository) repository=$2; shift ;;
            --s3-bucket) bucket=$2; shift ;;
            --role-arn) role=$2; shift ;;
            --dry-run) dry_run=true ;;
            -p | --profile) export AWS_PROFILE=$2; shift ;;
            -r | --region) region=$2; shift ;;
            -y | --yes) yes=true ;;
            -h | --help) usage; exit 0 ;;
            *) misused "unknown argument $1" ;;
        esac
        shift
    done
    if "$rollback" && "$create"; then misused "--rollback and --create-stack exclude each other"; fi
    [[ $version =~ ^([0-9]+)?$ ]] || misused "a version is a number, not $version"
}

find_tools() {
    sam=${SAM:-.venv-tools/bin/sam}
    [[ -x $sam ]] || sam=$(command -v sam) ||
        die "sam is not there" "make templates installs it into .venv-tools; or pip install aws-sam-cli"
    command -v aws >/dev/null || die "aws is not there" "https://docs.aws.amazon.com/cli: version 2"
    for tool in git curl python3; do
        command -v "$tool" >/dev/null || die "$tool is not there"
    done
    # tomllib came with Python 3.11.
    python=python3
    "$python" -c 'import tomllib' 2>/dev/null || python=.venv-tools/bin/python
    "$python" -c 'import tomllib' 2>/dev/null || die "Python 3.11 or newer is needed"
}

# Print a value of the section, an empty line when there is none.
configured() {
    "$python" - "$environment" "$1" <<'PYTHON'
import sys, tomllib
environment, name = sys.argv[1:]
try:
    with open("samconfig.toml", "rb") as file:
        section = tomllib.load(file).get(environment, {})
except tomllib.TOMLDecodeError as error:
    sys.exit(f"deploy-lambda: samconfig.toml: {error}")
for command in ("deploy", "global"):
    value = section.get(command, {}).get("parameters", {}).get(name)
    if value is not None:
        print(value)
        break
else:
    print()
PYTHON
}

# Write what sam is given to $1, readable by the owner only: on a command line everyone could read the secrets.
write_parameters() {
    (umask 077 && "$python" - "$environment" "$git_sha" "$create" >"$1") <<'PYTHON'
import json, os, shlex, sys, tomllib
environment, git_sha, create = sys.argv[1:]
with open("samconfig.toml", "rb") as file:
    section = tomllib.load(file)[environment]
given = {}
for command in ("global", "deploy"):
    overrides = section.get(command, {}).get("parameters", {}).get("parameter_overrides", [])
    for pair in shlex.split(overrides) if isinstance(overrides, str) else overrides:
        name, _, value = pair.partition("=")
        given[name] = value
if create == "true":
    for parameter, variable in (
        ("DatabaseUrl", "AUTH_DATABASE_URL"),
        ("SigningKeys", "AUTH_SIGNING_KEYS"),
        ("SecretKeys", "AUTH_SECRET_KEYS"),
    ):
        if os.environ.get(variable):
            given[parameter] = " ".join(os.environ[variable].splitlines())
given["GitSha"] = git_sha
json.dump(given, sys.stdout)
PYTHON
}

read_configuration() {
    [[ -f samconfig.toml ]] || die "there is no samconfig.toml" "cp samconfig.toml.example samconfig.toml, and fill it in"
    stack=$(configured stack_name)
    [[ -n $stack ]] || die "samconfig.toml has no stack_name for $environment" "Add [$environment.global.parameters]."
    region=${region:-$(configured region)}
    [[ -n $region ]] || die "no region" "Give --region, or region in [$environment.global.parameters]."
    export AWS_DEFAULT_REGION=$region AWS_REGION=$region AWS_PAGER='' SAM_CLI_TELEMETRY=0
    repository=${repository:-$(configured image_repository)}
    bucket=${bucket:-$(configured s3_bucket)}
    role=${role:-$(configured role_arn)}
}

identify() {
    local identity
    if ! identity=$(aws sts get-caller-identity --query '[Account,Arn]' --output text 2>&1); then
        die "no AWS credentials that work" "$identity" "aws sso login, aws configure, or --profile NAME"
    fi
    read -r account caller <<<"$identity"
    say "$environment: stack $stack in $region of account $account, as $caller"
}

read_status() {
    local answer
    if answer=$(aws cloudformation describe-stacks --stack-name "$stack" \
        --query 'Stacks[0].StackStatus' --output text 2>&1); then
        status=$answer
    elif [[ $answer == *"does not exist"* ]]; then
        status=''
    else
        die "the stack cannot be looked at" "$answer"
    fi
    case $status in
        '' | REVIEW_IN_PROGRESS | DELETE_COMPLETE)
            status=''
            "$rollback" && die "stack $stack does not exist in $region"
            "$create" || die "stack $stack does not exist in $region" "Is the region right? For a first deployment: --create-stack" ;;
        ROLLBACK_COMPLETE | ROLLBACK_FAILED | CREATE_FAILED | DELETE_FAILED)
            die "stack $stack is in $status: its creation failed, and it can only be deleted" \
                "Why: aws cloudformation describe-stack-events --stack-name $stack --region $region" \
                "Then: aws cloudformation delete-stack --stack-name $stack --region $region, and --create-stack again" ;;
        UPDATE_ROLLBACK_FAILED)
            die "stack $stack is in $status" \
                "aws cloudformation continue-update-rollback --stack-name $stack --region $region" ;;
        *_IN_PROGRESS) die "stack $stack is being changed ($status)" "Wait until that has ended." ;;
        *)
            if "$create"; then say "stack $stack exists ($status): it is updated, and keeps its secrets"; fi
            create=false # or keys that were rotated since would be replaced by the first ones
            ;;
    esac
    return 0
}

# Set git_sha: the commit; of changes that are not committed, the id of the whole content as well.
name_content() {
    git_sha=$(git rev-parse --short=12 HEAD) || die "there is no commit to name the image after" "git status"
    if "$skip_build"; then
        [[ -f $built ]] || die "nothing was built yet" "Leave out --skip-build."
        git_sha=$(awk '$1 == "ImageUri:" {sub(/.*:/, "", $2); print $2; exit}' "$built")
    elif [[ -n $(git status --porcelain) ]]; then
        # With an index and an object directory of our own: the repository stays as it is.
        local index objects
        index=$(git rev-parse --git-path index) objects=$(git rev-parse --path-format=absolute --git-path objects)
        cp "$index" "$work/index"
        mkdir "$work/objects"
        git_sha+=-dirty-$(
            export GIT_INDEX_FILE=$work/index GIT_OBJECT_DIRECTORY=$work/objects
            export GIT_ALTERNATE_OBJECT_DIRECTORIES=$objects
            git add --all && git write-tree | cut -c 1-12
        )
    fi
}

# Set image, and there: whether the repository has it. Needs no more rights than infra/bootstrap.yaml gives to CI.
find_image() {
    [[ -n $repository ]] || die "samconfig.toml has no image_repository for $environment" \
        "It is the output RepositoryUri of infra/bootstrap.yaml."
    local architecture answer
    architecture=$("$python" -c 'import json, sys
print(json.load(open(sys.argv[1])).get("Architecture", "x86_64"))' "$work/parameters.yaml")
    image=$repository:$git_sha-$architecture
    if answer=$(aws ecr describe-images --repository-name "${repository#*/}" \
        --image-ids "imageTag=${image##*:}" --query 'imageDetails[0].imageDigest' --output text 2>&1); then
        if [[ $answer == sha256:* ]]; then there=true; else there=false; fi
    elif [[ $answer == *ImageNotFoundException* ]]; then
        there=false
    elif [[ $answer == *RepositoryNotFoundException* ]]; then
        die "image repository $repository not found in $region" "$answer" "infra/bootstrap.yaml makes it."
    else
        die "the image repository cannot be looked at" "$answer"
    fi
}

confirm() {
    [[ $environment == prod || $environment == production ]] || return 0
    if ! "$rollback" && [[ -n $(git status --porcelain) || $git_sha == *-dirty-* ]]; then
        die "the working tree has changes that are not committed, and this is $environment" "git status"
    fi
    if "$yes" || "$dry_run"; then return; fi
    [[ -t 0 ]] || die "nobody is here to confirm a change of $environment" "--yes confirms."
    local answer
    read -r -p "Change $stack in account $account? Type its name: " answer
    [[ $answer == "$stack" ]] || die "not confirmed"
}

output() {
    aws cloudformation describe-stacks --stack-name "$stack" \
        --query "Stacks[0].Outputs[?OutputKey=='$1'].OutputValue | [0]" --output text
}

live_version() {
    aws lambda get-alias --function-name "$1" --name live --query FunctionVersion --output text
}

# Send all traffic of function $1 to version $2.
move_traffic() {
    run aws lambda update-alias --function-name "$1" --name live --function-version "$2" \
        --routing-config '{"AdditionalVersionWeights":{}}' --query FunctionVersion --output text >/dev/null
    "$dry_run" || say "traffic goes to version $2 of $1"
}

roll_back() {
    local function current
    function=$(output ApiFunctionName)
    current=$(live_version "$function")
    local versions
    versions=$(aws lambda list-versions-by-function --function-name "$function" \
        --query 'Versions[].Version' --output text | tr '\t' '\n' | grep -v LATEST | sort -n)
    if [[ -z $version ]]; then
        version=$(awk -v current="$current" '$1 < current' <<<"$versions" | tail -n 1)
        [[ -n $version ]] || die "there is no version before $current" "Versions: ${versions//$'\n'/ }"
    else
        grep -qx "$version" <<<"$versions" || die "there is no version $version" "Versions: ${versions//$'\n'/ }"
    fi
    [[ $version != "$current" ]] || die "version $version has the traffic already"
    say "from version $current back to $version; migrations stay, and the next deployment goes forward again"
    move_traffic "$function" "$version"
    try_api || die "the API does not work with version $version either" "docs/alarms.md"
}

find_docker() {
    if "$dry_run"; then return; fi
    command -v docker >/dev/null || die "docker is not there" "It builds and pushes the image."
    docker info >/dev/null 2>&1 || die "Docker is not running, or you may not use it" "docker info says why."
}

log_in() {
    aws ecr get-login-password | docker login --username AWS --password-stdin "${repository%%/*}" >/dev/null
}

# Build the image and push it, unless that was done for this commit before.
provide_image() {
    if "$there"; then
        say "image already there: $image"
        return
    fi
    find_docker
    "$skip_build" || run "$sam" build --template template.yaml \
        --parameter-overrides "file://$work/parameters.yaml" || die "the image was not built"
    local local_image=BUILT
    [[ ! -f $built ]] || local_image=$(awk '$1 == "ImageUri:" {print $2; exit}' "$built")
    run docker tag "$local_image" "$image" || die "the image that was built is not there" "Leave out --skip-build."
    run log_in || die "the registry of $repository lets nobody in"
    run docker push --quiet "$image" >/dev/null || die "the image was not pushed"
}

# Write the template with the image in it to $1. Always from template.yaml, so that the same commit is no change.
write_template() {
    awk -v image="$image" '{print}
        $1 == "PackageType:" && $2 == "Image" {match($0, /^ */); printf "%*sImageUri: %s\n", RLENGTH, "", image}' \
        template.yaml >"$1"
}

# Invoke function $1 with {"action": "migrate"}.
migrate() {
    say "migrating the database"
    printf '{"action": "migrate"}' >"$work/event.json"
    run aws lambda invoke --function-name "$1" --payload "fileb://$work/event.json" --cli-read-timeout 320 \
        "$work/answer.json" >"$work/invoked.json" || die "the migrations were not started"
    if ! "$dry_run" && grep -q FunctionError "$work/invoked.json"; then
        die "the migrations failed, and traffic stays where it is" "$(cat "$work/answer.json")" \
            "The log: aws logs tail /auth-manager/$stack/maintenance --since 10m --region $region"
    fi
}

# Before the alias moves, the new image's migrations run in $LATEST, which schedules do not use.
migrate_with_new_image() {
    local function
    function=$(output MaintenanceFunctionName)
    [[ -n $function && $function != None ]] || return 0
    run aws lambda update-function-code --function-name "$function" --image-uri "$image" \
        --query LastUpdateStatus --output text >/dev/null || die "the maintenance function did not take the new image"
    run aws lambda wait function-updated --function-name "$function" ||
        die "the maintenance function did not take the new image"
    migrate "$function"
}

deploy() {
    local capabilities storage=(--resolve-s3)
    capabilities=$(configured capabilities)
    [[ -z $bucket ]] || storage=(--s3-bucket "$bucket")
    # The answers of samconfig.toml are given here: sam would take its parameters instead of, not beside, ours.
    run "$sam" deploy --template-file "$work/packaged.yaml" --config-file "$PWD/samconfig.toml" \
        --config-env "$environment" --stack-name "$stack" --region "$region" --image-repository "$repository" \
        "${storage[@]}" ${role:+--role-arn "$role"} --capabilities "${capabilities:-CAPABILITY_IAM}" \
        --no-fail-on-empty-changeset --no-confirm-changeset \
        --parameter-overrides "file://$work/parameters.yaml" ||
        die "the deployment failed, and CloudFormation went back" \
            "aws cloudformation describe-stack-events --stack-name $stack --region $region"
}

try_api() {
    if "$skip_smoke_test"; then return; fi
    url=${url:-$(output ApiUrl)}
    run scripts/smoke-test.sh "$url"
}

# An alias that a rollback moved stays where it is when the stack has nothing to change.
move_forward() {
    local deployed
    deployed=$(output ApiVersion)
    deployed=${deployed##*:}
    [[ $deployed =~ ^[0-9]+$ && $deployed != "$(live_version "$1")" ]] || return 0
    move_traffic "$1" "$deployed"
}

main() {
    parse_arguments "$@"
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    find_tools
    read_configuration
    identify
    read_status
    if "$rollback"; then
        confirm
        roll_back
        return
    fi

    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    built=.aws-sam/build/template.yaml
    name_content
    confirm
    write_parameters "$work/parameters.yaml"
    find_image
    run "$sam" validate --lint --template template.yaml || die "the template is not valid"
    provide_image
    write_template "$work/packaged.yaml"

    local function='' before=''
    if [[ -n $status ]]; then
        function=$(output ApiFunctionName)
        before=$(live_version "$function") || before=''
        "$skip_migrations" || migrate_with_new_image
    fi
    deploy
    if "$dry_run"; then return; fi
    if [[ -z $status ]] && ! "$skip_migrations"; then
        migrate "$(output MaintenanceFunctionName)"
    fi
    function=$(output ApiFunctionName)
    move_forward "$function"
    if ! try_api; then
        if [[ -z $before || $before == "$(live_version "$function")" ]]; then
            die "deployed, but the API does not work" "docs/alarms.md"
        fi
        say "deployed, but the API does not work"
        move_traffic "$function" "$before"
        exit 3
    fi
    say "deployed $git_sha: version $(live_version "$function") at $(output ApiUrl)"
}

main "$@"
