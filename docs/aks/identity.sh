#!/usr/bin/env bash
# A managed identity for the pod itself, as workload identity: what it needs to read a Key Vault, or to pull from the registry by itself. Needs Azure.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=settings.sh
. ./settings.sh
identity="${IDENTITY:-windlass}"

az identity create --name "$identity" --resource-group "$GROUP" --output none
client="$(az identity show --name "$identity" --resource-group "$GROUP" --query clientId --output tsv)"
issuer="$(az aks show --name "$CLUSTER" --resource-group "$GROUP" --query oidcIssuerProfile.issuerUrl --output tsv)"
registry_id="$(az acr show --name "$REGISTRY" --query id --output tsv)"
az identity federated-credential create --name windlass --identity-name "$identity" --resource-group "$GROUP" \
    --issuer "$issuer" --subject "system:serviceaccount:$NAMESPACE:$RELEASE" --audiences api://AzureADTokenExchange --output none
az role assignment create --assignee "$client" --role AcrPull --scope "$registry_id" --output none

cat <<VALUES
serviceAccount: { create: true, name: $RELEASE }
workloadIdentity: { enabled: true, clientId: "$client" }
VALUES
