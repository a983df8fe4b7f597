#!/usr/bin/env bash
# Builds the host's image and the chart, and pushes both to the registry. `image.sh --remote` builds in Azure, for those without Docker. Needs Azure.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=settings.sh
. ./settings.sh
cd ../..

if [ "${1:-}" = --remote ]; then
    az acr build --registry "$REGISTRY" --image "windlass:$VERSION" .
else
    # The nodes' architecture, whatever this machine's is; on another it takes QEMU.
    docker build --platform linux/amd64 --tag "$REGISTRY.azurecr.io/windlass:$VERSION" .
    docker image list "$REGISTRY.azurecr.io/windlass"
    az acr login --name "$REGISTRY"
    docker push "$REGISTRY.azurecr.io/windlass:$VERSION"
fi

package="$(mktemp -d)"
helm package charts/windlass --destination "$package"
token="$(az acr login --name "$REGISTRY" --expose-token --query accessToken --output tsv)"
helm registry login "$REGISTRY.azurecr.io" --username 00000000-0000-0000-0000-000000000000 --password-stdin <<<"$token"
helm push "$package/windlass-$VERSION.tgz" "oci://$REGISTRY.azurecr.io/charts"
rm -r "$package"
