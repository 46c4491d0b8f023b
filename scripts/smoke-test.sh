#!/usr/bin/env bash
# Tries a running Auth Manager as a user would: health, keys, register, log in, refresh, log out.
# Needs curl and python3.
set -euo pipefail

if (($# != 1)) || [[ $1 == -h || $1 == --help ]]; then
    echo "Usage: scripts/smoke-test.sh URL, for example https://auth.example.com" >&2
    echo "The account that it makes is deleted at the end, or named. Exit status 1: something does not work." >&2
    [[ ${1:-} == -h || ${1:-} == --help ]] && exit 0
    exit 2
fi

api=${1%/}
work=$(mktemp -d)
token='' left=''
fail() { echo "smoke-test: $*" >&2; exit 1; }

# call NAME STATUS METHOD PATH [BODY]: the status must match, or be $also; it is in $status, the body in $work/body.
call() {
    local arguments=(--silent --show-error --max-time 30 --output "$work/body" --write-out '%{http_code}' --request "$3")
    # On standard input, so that no token and no password is on a command line.
    [[ -z $token ]] || arguments+=(--config -)
    if (($# > 4)); then
        printf '%s' "$5" >"$work/request"
        arguments+=(--header 'Content-Type: application/json' --data-binary "@$work/request")
    fi
    status=$(curl "${arguments[@]}" "$api$4" <<<"header = \"Authorization: Bearer $token\"") ||
        fail "$1: $api does not answer"
    # shellcheck disable=SC2053 # $2 is a pattern
    [[ $status == $2 || $status == "${also:-}" ]] || fail "$1: $3 $4 answered $status instead of $2: $(head -c 500 "$work/body")"
    echo "ok  $1"
}

# field NAME PYTHON: evaluate an expression over `body`.
field() {
    python3 -c 'import json, sys
with open(sys.argv[1], encoding="utf-8") as file:
    body = json.load(file)
print(eval(sys.argv[2], {"body": body}))' "$work/body" "$2" 2>/dev/null ||
        fail "$1: not the JSON of this API: $(head -c 500 "$work/body")"
}

clean_up() {
    local status=$? status_of_delete
    if [[ -n $token ]]; then
        status_of_delete=$(curl --silent --max-time 30 --output /dev/null --write-out '%{http_code}' \
            --request DELETE --config - "$api/auth/me" <<<"header = \"Authorization: Bearer $token\"") || true
        [[ $status_of_delete != 204 ]] || left=''
    fi
    [[ -z $left ]] || echo "smoke-test: the account $left stays" >&2
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
umask 077

read -r email password < <(python3 -c 'import secrets
# The mailbox simulator of Amazon SES: what the registration mails there neither bounces nor counts.
print(f"success+smoke-{secrets.token_hex(8)}@simulator.amazonses.com", secrets.token_urlsafe(24))')
login="{\"email\": \"$email\", \"password\": \"$password\"}"

call "the process answers" 200 GET /health
call "database, migrations and keys are usable" 200 GET /health/ready
call "public keys are listed" 200 GET /.well-known/jwks.json
usable=$(field "public keys are listed" 'len(body["keys"]) > 0 and not any("d" in key for key in body["keys"])')
[[ $usable == True ]] || fail "the JWK set is empty, or shows a private key"
call "register" '20[12]' POST /auth/register "$login"
if [[ $status == 202 ]]; then
    # No account can log in before its address is verified, and nobody reads the mail of this one.
    call "a login before verification is refused" '40[13]' POST /auth/login "$login"
    echo "smoke-test: $api works, as far as it lets in nobody unverified; $email stays, unverified"
    exit 0
fi
left=$email
also=403 call "log in" 200 POST /auth/login "$login"
if [[ $status == 403 ]]; then
    asked=$(field "log in" 'body["code"]')
    [[ $asked == mfa_enrolment_required ]] || fail "log in: 403 $asked"
    # AUTH_MFA_POLICY=required: nobody has an authenticator app at hand here.
    echo "smoke-test: $api works, as far as it lets in nobody without a second factor"
    exit 0
fi
refresh_token=$(field "log in" 'body["refresh_token"]')
token=$(field "log in" 'body["access_token"]')
call "the token is accepted" 200 GET /auth/me
profile=$(field "the token is accepted" 'body["email"]')
[[ $profile == "$email" ]] || fail "the token is accepted: somebody else's profile"
call "refresh" 200 POST /auth/refresh "{\"refresh_token\": \"$refresh_token\"}"
refresh_token=$(field "refresh" 'body["refresh_token"]')
token=$(field "refresh" 'body["access_token"]')
call "log out" 204 POST /auth/logout '{"scope": "this"}'
call "a token of an ended session is refused" 401 GET /auth/me
token=''
call "a refresh token of an ended session is refused" 401 POST /auth/refresh "{\"refresh_token\": \"$refresh_token\"}"
call "log in again" 200 POST /auth/login "$login"
token=$(field "log in again" 'body["access_token"]')
call "delete the account" 204 DELETE /auth/me
token='' left=''
call "the account is gone" 401 POST /auth/login "$login"
echo "smoke-test: $api works"
