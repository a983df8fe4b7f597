#!/usr/bin/env bash
# Installs or upgrades the host: `install.sh VALUES.yaml …`. Shows what would be done first, and waits until the new pod is ready. Needs Azure, or any cluster and registry.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=settings.sh
. ./settings.sh

values=()
for file in "$@"; do values+=(--values "$file"); done
chart=("oci://$REGISTRY.azurecr.io/charts/windlass" --version "$VERSION")
image=(--set "image.repository=$REGISTRY.azurecr.io/windlass")

helm upgrade --install "$RELEASE" "${chart[@]}" "${image[@]}" "${values[@]}" \
    --namespace "$NAMESPACE" --create-namespace --dry-run=server --debug
helm upgrade --install "$RELEASE" "${chart[@]}" "${image[@]}" "${values[@]}" \
    --namespace "$NAMESPACE" --create-namespace --wait --timeout 5m
kubectl --namespace "$NAMESPACE" get pods
