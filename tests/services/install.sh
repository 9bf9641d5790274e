#!/bin/sh
# What the tests use beyond Python packages: Java for Kafka and Elasticsearch, GStreamer's RTSP server, Chromium.
# Installs what is missing where it may (root on Debian); elsewhere the tests that need it skip and say so.
set -eu
packages=""
need() { # need COMMAND-OR-FILE PACKAGE…
    what=$1; shift
    case "$what" in
        /*) [ -e "$what" ] || packages="$packages $*" ;;
        *) command -v "$what" >/dev/null 2>&1 || packages="$packages $*" ;;
    esac
}
need java default-jre-headless
need mvn maven
need chromium chromium
need /usr/lib/x86_64-linux-gnu/girepository-1.0/GstRtspServer-1.0.typelib \
    python3-gi gir1.2-gst-rtsp-server-1.0 \
    gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly
[ -n "$packages" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing for the tests:$packages"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086 the list is meant to split
    apt-get install -y -qq --no-install-recommends $packages >/dev/null
else
    echo "not installed, the tests that need them will skip:$packages"
fi
