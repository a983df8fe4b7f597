#!/usr/bin/env bash
# A resource group, a registry, and a cluster whose nodes may pull from it. Needs Azure; takes about ten minutes.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=settings.sh
. ./settings.sh

az group create --name "$GROUP" --location "$LOCATION" --output none
az acr create --name "$REGISTRY" --resource-group "$GROUP" --sku Standard --output none
# --attach-acr lets the kubelet pull images. It gives the pod itself nothing: see identity.sh for that.
az aks create --name "$CLUSTER" --resource-group "$GROUP" --node-count 2 --generate-ssh-keys \
    --attach-acr "$REGISTRY" --enable-oidc-issuer --enable-workload-identity --output none
az aks get-credentials --name "$CLUSTER" --resource-group "$GROUP" --overwrite-existing
kubectl get nodes
