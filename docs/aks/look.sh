#!/usr/bin/env bash
# What is going on: the pod, its events, the last lines of its log, and the health report. Needs a cluster.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=settings.sh
. ./settings.sh

deployment="deploy/$(kubectl --namespace "$NAMESPACE" get deployments --selector "app.kubernetes.io/instance=$RELEASE" \
    --output jsonpath='{.items[0].metadata.name}')"
kubectl --namespace "$NAMESPACE" get pods --selector "app.kubernetes.io/instance=$RELEASE"
kubectl --namespace "$NAMESPACE" describe pods --selector "app.kubernetes.io/instance=$RELEASE" | sed -n '/^Events:/,$p'
kubectl --namespace "$NAMESPACE" logs "$deployment" --tail 20
# No shell is needed for this: it asks the host's own health port from within.
kubectl --namespace "$NAMESPACE" exec "$deployment" -- windlass health --url http://127.0.0.1:8080/health
