#!/usr/bin/env bash
# An Azure Files share for plugins and the Secret that mounts it: `plugins-share.sh FILE.wasm …` uploads. The account's name is yours to set. Needs Azure.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=settings.sh
. ./settings.sh
: "${ACCOUNT:?set ACCOUNT to the name of your storage account}"
share="${SHARE:-plugins}"

az storage account create --name "$ACCOUNT" --resource-group "$GROUP" --location "$LOCATION" --sku Standard_LRS --output none
key="$(az storage account keys list --account-name "$ACCOUNT" --resource-group "$GROUP" --query '[0].value' --output tsv)"
az storage share create --name "$share" --account-name "$ACCOUNT" --account-key "$key" --output none
for file in "$@"; do
    az storage file upload --share-name "$share" --source "$file" --account-name "$ACCOUNT" --account-key "$key" --output none
done
kubectl create namespace "$NAMESPACE" --dry-run=client --output yaml | kubectl apply --filename -
kubectl --namespace "$NAMESPACE" create secret generic plugins-share \
    --from-literal=azurestorageaccountname="$ACCOUNT" --from-literal=azurestorageaccountkey="$key" \
    --dry-run=client --output yaml | kubectl apply --filename -
