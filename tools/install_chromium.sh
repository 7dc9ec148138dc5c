#!/bin/sh
# Install Debian's Chromium for the browser tests, if there is none and this user can; otherwise say that they are skipped.
set -u

for name in "${SD4MATCH_CHROMIUM:-}" chromium chromium-browser google-chrome; do
    if [ -n "$name" ] && found=$(command -v "$name"); then
        echo "browser tests will use $found"
        exit 0
    fi
done

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    if { apt-get update && apt-get install --yes --no-install-recommends chromium fonts-dejavu-core; } >/dev/null 2>&1 &&
        found=$(command -v chromium); then
        echo "browser tests will use $found, which was installed"
        exit 0
    fi
    reason="apt-get could not install chromium"
else
    reason="there is no Chromium, and installing it needs root and apt-get"
fi
echo "browser tests will be skipped: $reason"
